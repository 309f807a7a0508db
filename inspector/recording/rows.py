"""What was measured, as rows of the store: with the epoch, the throughput and the memory beside."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch

from inspector.capture.measured import Measured, Table
from inspector.capture.memory import device_bytes, resident_bytes
from inspector.capture.quiet import NOWHERE, Column, filled
from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, F32
from inspector.store.writer import Writer

CONTEXT = ("epoch", "samples")
"""Numbers in force until they are given again."""

_SLOW_SECONDS = 1.0


class Rows:
    """Writes the rows of one rank.

    The run's own series share one growing tuple of keys, which stays the same object until a name
    is new, with gaps where nothing was measured.

    Attributes:
        context: the last value of each of :data:`CONTEXT`.
    """

    def __init__(self, writer: Writer, device: torch.device) -> None:
        self.context: dict[str, float] = {}
        self._writer = writer
        self._device = device
        self._next_slow = 0.0
        self._keys: tuple[SeriesKey, ...] = ()
        self._column: dict[str, int] = {}
        self._blanks: dict[tuple[str, ...], tuple[F32, npt.NDArray[np.intp]]] = {}
        self._groups: dict[str, str] = {}  # of each number of a validation
        self._validated = -1

    def add(self, measured: Measured) -> None:
        """One step."""
        scalars, context, writer = measured.scalars, self.context, self._writer
        for name in CONTEXT:
            if name in scalars:
                context[name] = scalars.pop(name)
        now = time.monotonic()
        if now >= self._next_slow:
            self._next_slow = now + _SLOW_SECONDS
            self._add_memory(scalars)
        if "epoch" in context:
            scalars["epoch"] = context["epoch"]
        if "samples" in context and (seconds := scalars.get("step_time")):
            scalars["samples_per_s"] = context["samples"] / seconds
        names = tuple(scalars)
        values, places = self._blanks.get(names) or self._blank(names)
        values[places] = list(scalars.values())
        writer.append("scalar", measured.step, self._keys, values)
        if (table := measured.parameters) is not None and table.keys:
            writer.append("parameter", measured.step, table.keys, table.values)
        if (table := measured.modules) is not None and table.keys:
            writer.append("module", measured.step, table.keys, table.values)
        for histogram in measured.histograms:
            writer.histogram(
                measured.step,
                histogram.kind,
                histogram.subject,
                histogram.low,
                histogram.high,
                histogram.counts,
            )

    def extend(
        self,
        first: int,
        columns: dict[str, Column],
        parameters: Table | None,
        modules: Table | None,
    ) -> None:
        """Consecutive steps, from columns with gaps."""
        count = len(next(iter(columns.values())))
        for name in CONTEXT:
            if name in columns:
                columns[name] = filled(columns[name], self.context.get(name, NOWHERE))
                self.context[name] = float(columns[name][-1])
        if "epoch" in self.context and "epoch" not in columns:
            columns["epoch"] = np.full(count, self.context["epoch"])
        samples = columns.pop("samples", self.context.get("samples"))
        if samples is not None:
            columns["samples_per_s"] = samples / columns["step_time"]
        self._writer.extend("scalar", first, *self._spread(columns))
        for group, table in (("parameter", parameters), ("module", modules)):
            if table is not None and table.keys:
                self._writer.extend(group, first, table.keys, table.values)

    def validation(self, step: int, scalars: dict[str, float]) -> None:
        """Numbers at a finished step; several calls in one step may add to each other.

        A group takes one row a step, so what first comes in a second call has its own.
        """
        rows: dict[str, dict[str, float]] = {}
        for name, value in scalars.items():
            usual = "validation" if step > self._validated else f"validation/{name}"
            rows.setdefault(self._groups.setdefault(name, usual), {})[name] = value
        for group, row in rows.items():
            self._writer.append(group, step, tuple(map(SeriesKey, row)), list(row.values()))
        self._validated = max(self._validated, step if "validation" in rows else -1)

    def _blank(self, names: tuple[str, ...]) -> tuple[F32, npt.NDArray[np.intp]]:
        """A row to be filled in for every step with these numbers, and their places in it."""
        self._learn(names)
        values = np.full(len(self._keys), ABSENT, dtype=np.float32)
        blank = values, np.array([self._column[name] for name in names], dtype=np.intp)
        self._blanks[names] = blank
        return blank

    def _spread(self, columns: dict[str, Column]) -> tuple[tuple[SeriesKey, ...], F32]:
        """Keys, and a row for each of the steps."""
        self._learn(tuple(columns))
        places = [self._column[name] for name in columns]
        table = np.stack(list(columns.values()), axis=1)
        values = np.full((len(table), len(self._keys)), ABSENT, dtype=np.float32)
        with np.errstate(over="ignore"):
            values[:, places] = np.where(table == NOWHERE, ABSENT, table)
        return self._keys, values

    def _learn(self, names: tuple[str, ...]) -> None:
        new = [name for name in names if name not in self._column]
        if new:
            self._column.update({name: len(self._keys) + i for i, name in enumerate(new)})
            self._keys += tuple(map(SeriesKey, new))
            self._blanks.clear()

    def _add_memory(self, scalars: dict[str, float]) -> None:
        if (resident := resident_bytes()) is not None:
            scalars["memory"] = resident
        if (allocated := device_bytes(self._device)) is not None:
            scalars["gpu_memory"] = allocated
