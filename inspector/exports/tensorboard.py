"""Telemetry as TensorBoard event files, written with TensorBoard's own writer (no torch needed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inspector.exports.formats import Made, Request
from inspector.exports.tables import column
from inspector.quantities import SeriesKey
from inspector.store.layout import is_absent
from inspector.store.reader import Histogram, RawRows, Run

Setting = bool | int | float | str


def tensorboard(request: Request) -> Made:
    """Writes scalars with their times, histograms and hyperparameters; a folder for each rank."""
    run = request.run
    ranks = run.ranks
    scalars = histograms = 0
    for rank in ranks:
        folder = request.out / f"rank{rank}" if len(ranks) > 1 else request.out
        with _Events(folder) as events:
            if rank == 0 and run.config:
                events.hyperparameters(run.name, settings(run.config), _created(run))
            for window in run.raw(rank=rank):
                for rows in window:
                    scalars += events.scalars(rows)
            histograms += _histograms(run, rank, events)
    return Made(
        notes=(
            f"{scalars:,} scalars and {histograms:,} histograms; look at them with: "
            "tensorboard --logdir FOLDER.",
        ),
        facts={"scalars": scalars, "histograms": histograms},
    )


def settings(config: dict[str, Any]) -> dict[str, Setting]:
    """A configuration with dots for what is nested; lists become text, what is empty goes."""
    flat: dict[str, Setting] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": one for inner, one in settings(value).items()}
        elif isinstance(value, (bool, int, float, str)):
            flat[key] = value
        elif value:
            flat[key] = str(value)
    return {key: value for key, value in flat.items() if value != ""}


class _Events:
    """An event file; a context manager."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = EventFileWriter(str(folder), max_queue_size=1000)
        self._event: Any = event_pb2.Event
        self._summary: Any = summary_pb2

    def scalars(self, rows: RawRows) -> int:
        """Every measured number of the rows; how many there were."""
        tags = [column(key) for key in rows.keys]
        present = ~is_absent(rows.values)
        count = 0
        for at, (step, wall) in enumerate(zip(rows.steps, rows.walls, strict=True)):
            measured = np.flatnonzero(present[:, at])
            values = [
                self._summary.Summary.Value(tag=tags[one], simple_value=rows.values[one, at])
                for one in measured
            ]
            if values:
                self._add(int(step), float(wall), self._summary.Summary(value=values))
            count += len(values)
        return count

    def histogram(self, tag: str, wall: float, found: Histogram) -> None:
        """One histogram; sums are those of the middles of its bins."""
        edges = np.linspace(found.low, found.high, len(found.counts) + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        proto = self._summary.HistogramProto(
            min=found.low, max=found.high, num=float(found.counts.sum()),
            sum=float((middles * found.counts).sum()),
            sum_squares=float((middles**2 * found.counts).sum()),
            bucket_limit=edges[1:].tolist(), bucket=found.counts.astype(float).tolist(),
        )  # fmt: skip
        value = self._summary.Summary.Value(tag=tag, histo=proto)
        self._add(found.step, wall, self._summary.Summary(value=[value]))

    def hyperparameters(self, name: str, values: dict[str, Setting], wall: float) -> None:
        """The settings, for TensorBoard's HParams page."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        made: Any = hparams_pb
        self._add(0, wall, made(values, trial_id=name, start_time_secs=wall))

    def _add(self, step: int, wall: float, summary: Any) -> None:
        self._writer.add_event(self._event(step=step, wall_time=wall, summary=summary))

    def __enter__(self) -> _Events:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _histograms(run: Run, rank: int, events: _Events) -> int:
    steps, walls = run.clock(rank=rank)
    if not len(steps):
        return 0
    count = 0
    for kind, subject in _subjects(run, rank):
        for found in run.histograms(kind, subject, rank=rank):
            if np.isfinite(found.low) and np.isfinite(found.high) and found.counts.sum():
                wall = float(np.interp(found.step, steps, walls))
                tag = column(SeriesKey(f"{kind}_histogram", "module", subject))
                events.histogram(tag, wall, found)
                count += 1
    return count


def _subjects(run: Run, rank: int) -> list[tuple[str, str]]:
    """What histograms may have been recorded of."""
    parameters = (run.document("parameters", rank=rank) or {}).get("parameters", [])
    modules = (run.document("modules", rank=rank) or {}).get("modules", [])
    names = [str(one["name"]) for one in parameters]
    return [
        *(("weight", name) for name in names),
        *(("gradient", name) for name in names),
        *(("activation", str(one["path"])) for one in modules),
    ]


def _created(run: Run) -> float:
    return next((stored.wall for stored in run.events()), 0.0)
