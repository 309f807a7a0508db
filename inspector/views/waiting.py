"""How much of a run's time is spent waiting for data, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.numerals import short
from inspector.quantities import SeriesKey
from inspector.store.reader import Run

DOMINATES = 0.5
"""Share of the time from which waiting is said to dominate: training could be twice as fast."""

RECENT = 100


@dataclass(frozen=True, slots=True)
class Wait:
    """Means over the last steps.

    Attributes:
        share: of the steps' time that was spent waiting, 0 to 1.
        seconds: waited for the batches of one step.
        steps: how many steps the mean is over.
    """

    share: float
    seconds: float
    steps: int

    @property
    def dominates(self) -> bool:
        return self.share >= DOMINATES


def is_measured(run: Run, *, rank: int = 0) -> bool:
    """Whether it is known how long the steps waited for their data."""
    return SeriesKey("data_seconds") in run.keys(rank=rank)


def waited(run: Run, *, rank: int = 0) -> Wait | None:
    """What the last hundred steps waited; None while that is not known.

    The first step's time is not known: it is left out.
    """
    newest = run.series("step_time", max_points=2, rank=rank).steps
    if not len(newest):
        return None
    first = int(newest[-1]) - RECENT + 1
    times = run.series("step_time", first=first, rank=rank)
    waits = run.series("data_seconds", first=first, rank=rank)
    _, of_times, of_waits = np.intersect1d(times.steps, waits.steps, return_indices=True)
    total = float(times.values[of_times].sum(dtype=np.float64))
    if not total > 0:
        return None
    waiting = float(waits.values[of_waits].sum(dtype=np.float64))
    return Wait(min(waiting / total, 1.0), waiting / len(of_waits), len(of_waits))


def advice(wait: Wait, config: Mapping[str, Any], *, device: str = "") -> str:
    """What to do where waiting dominates, as one paragraph.

    Args:
        config: of a built-in run (see ``RunConfig``); empty for a script of one's own.
        device: what the run trains on.
    """
    said = (
        f"{wait.share:.0%} of the last {wait.steps} steps' time went into waiting for data: "
        f"{_duration(wait.seconds)} a step in which the model did nothing."
    )
    return f"{said} {' '.join(_remedies(config, device))}"


def _remedies(config: Mapping[str, Any], device: str) -> list[str]:
    workers = config.get("workers")
    if workers:
        found = [f"Let more than {workers} workers load ahead, up to one for each processor core"]
    elif config:
        found = ["Let other processes load ahead (workers: 2 or more)"]
    else:
        found = ["Let other processes load ahead (DataLoader(…, num_workers=2) or more)"]
    augmented = " and do expensive transforms once instead of in every epoch"
    found.append(f"keep decoded samples in memory (a cache in your Dataset){augmented}")
    if device.startswith("cuda") and not config.get("pin_memory"):
        found.append("switch pin_memory on, so that copies to the GPU are faster")
    return [f"{'; '.join(found)}."]


def _duration(seconds: float) -> str:
    return f"{short(seconds, 3)} s" if seconds >= 1 else f"{short(seconds * 1e3, 3)} ms"
