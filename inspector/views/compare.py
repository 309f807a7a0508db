"""Series of several runs side by side: which they share, on one axis, and how each ended."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inspector.quantities import QUANTITIES, described
from inspector.store.layout import F64, I64
from inspector.store.reader import Run, Series
from inspector.views.newest import newest
from inspector.views.optimizers import is_setting

Axis = Literal["step", "epoch", "time"]
MOST_RUNS = 8
"""More lines than this in one chart cannot be told apart, nor can their colours."""

_AT_ONCE = 1e-3  # seconds
_FIRST = (
    "loss", "val_loss", "accuracy", "val_accuracy", "lr", "total_grad_norm", "total_update_ratio",
)  # fmt: skip
_HIGHER = re.compile(
    r"acc|accuracy|f1|auc|auroc|precision|recall|specificity|iou|dice|r2|score|bleu|psnr|ssim|map"
)
_LOWER = re.compile(r"loss|error|err|perplexity|ppl|mae|mse|rmse|nll|cer|wer|fid")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A quantity that some of the runs recorded for the run as a whole."""

    quantity: str
    title: str
    runs: int


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A series along an axis: ``x`` float64[n], rising; the rest as in the store's ``Series``."""

    x: F64
    series: Series


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a quantity ended, and its best.

    Attributes:
        last: the newest number.
        best: the best one and its step; None for a quantity of which neither more nor less is
            better, or where nothing finite was measured.
    """

    last: float
    best: float | None = None
    best_step: int | None = None


def recorded(runs: Sequence[Run]) -> list[Recorded]:
    """Quantities that can be drawn over each other, the usual ones first, then by name."""
    counts = Counter(
        quantity for run in runs for quantity in {key.quantity for key in run.keys()  # noqa: SIM118
                                                  if key.scope == "run" and not key.subject}
    )  # fmt: skip
    order = {name: place for place, name in enumerate(_FIRST)}
    names = sorted(counts, key=lambda name: (order.get(name, len(order)), _own(name), name))
    return [Recorded(name, title(name), counts[name]) for name in names]


def title(quantity: str) -> str:
    """The quantity in words; a user's own scalar keeps its name."""
    return described(quantity).title


def usual(found: Sequence[Recorded]) -> list[str]:
    """What is drawn before anybody chooses: losses, accuracies, or else the first scalars."""
    names = [item.quantity for item in found]
    scores = [name for name in names if name in _FIRST[:4]]
    return scores or [name for name in names if better(name)][:4] or names[:2]


def curve(run: Run, quantity: str, axis: Axis = "step", *, max_points: int = 600) -> Curve | None:
    """A series of the run along an axis; None where the run lacks the series or the axis.

    Epochs are those completed, as a fraction. Time is in seconds since the run's first step was
    recorded, and goes on while a run is paused.
    """
    series = run.series(quantity, max_points=max_points)
    if not len(series):
        return None
    x = along(run, axis, series.steps)
    return None if x is None else Curve(x, series)


def along(run: Run, axis: Axis, steps: I64) -> F64 | None:
    """Where steps of a run lie on an axis, by straight lines between what was recorded."""
    if axis == "step":
        return steps.astype(np.float64)
    if axis == "epoch":
        epochs = run.series("epoch", max_points=2000)
        known, values = epochs.steps, epochs.values.astype(np.float64)
    else:
        known, values = _spread(*run.clock())
    return np.interp(steps, known, values) if len(known) else None


def _spread(steps: I64, walls: F64) -> tuple[I64, F64]:
    """Seconds since the first step; steps that were taken in at one go did not happen at once."""
    seconds = walls - walls[:1]
    keep = np.diff(seconds, append=np.inf) > _AT_ONCE
    keep[:1] = True
    return steps[keep], seconds[keep]


def gap(first: Curve, second: Curve, start: float = -math.inf) -> Curve | None:
    """The second curve minus the first from ``start`` on, where both are known.

    Between its points the first curve is taken to be straight. None where they have no common
    stretch.
    """
    if not (len(first.x) and len(second.x)):
        return None
    low = max(first.x[0], second.x[0], start)
    inside = (second.x >= low) & (second.x <= first.x[-1])
    if not inside.any():
        return None
    x = second.x[inside]
    values = second.series.values[inside] - np.interp(x, first.x, first.series.values)
    numbers = values.astype(np.float32)
    bad = (~np.isfinite(numbers)).astype(np.int32)
    steps = second.series.steps[inside]
    return Curve(x, Series(steps, numbers, numbers, numbers, bad))


def better(quantity: str) -> Literal["higher", "lower", ""]:
    """Whether more or less of a quantity is better, judged by the words of its name."""
    words = [word for word in re.split(r"[^a-z0-9]+", quantity.lower()) if word]
    if any(_LOWER.fullmatch(word) for word in words):
        return "lower"
    return "higher" if any(_HIGHER.fullmatch(word) for word in words) else ""


def outcome(run: Run, quantity: str) -> Outcome | None:
    """None where the run recorded no such series.

    The best of a long series is exact: buckets keep their least and greatest number, and the best
    one is read as it was measured.
    """
    series = run.series(quantity, max_points=2000)
    if not len(series):
        return None
    measured = newest(run, quantity)
    last = measured[1] if measured else float(series.values[-1])
    direction = better(quantity)
    candidates = series.high if direction == "higher" else series.low
    if not direction or not np.isfinite(candidates).any():
        return Outcome(last)
    place = int(np.nanargmax(candidates) if direction == "higher" else np.nanargmin(candidates))
    best, step = float(candidates[place]), int(series.steps[place])
    if series.bucket > 1:
        since = int(series.steps[place - 1]) + 1 if place else None
        exact = run.series(quantity, max_points=4 * series.bucket, first=since, last=step)
        step = int(exact.steps[int(np.argmax(exact.values == np.float32(best)))])
    return Outcome(last, best, step)


def _own(name: str) -> int:
    """Scalars of the user's own before what is only about the machine."""
    if name not in QUANTITIES:
        return 1 if is_setting(name) else 0
    technical = ("overhead", "memory", "gpu_", "step_time", "samples_per_s", "data_seconds")
    return 2 if name.startswith(technical) else 1
