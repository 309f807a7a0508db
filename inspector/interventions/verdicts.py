"""Has the remedy helped? The statistic of the finding, before it and fifty steps after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inspector.events import RemedyVerdict

STEPS = 50
_SETTLING = 5  # steps right after the remedy that do not count
_BETTER = 0.8


class Measurements(Protocol):
    """The part of :class:`inspector.store.reader.Run` that is needed."""

    def series(
        self, quantity: str, subject: str = "", *, max_points: int = 2000,
        first: int | None = None, last: int | None = None,
    ) -> Any: ...  # fmt: skip

    def keys(self) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One remedy that waits for its verdict; the fields are those of the ``remedy`` command.

    Attributes:
        side: on which side of the threshold the statistic is wrong.
        relative: divide by the largest value of the quantity over all weights.
    """

    text: str
    code: str
    step: int
    quantity: str
    subject: str = ""
    threshold: float | None = None
    side: str = "above"
    relative: bool = False

    @property
    def due(self) -> int:
        """The step before which the verdict is given."""
        return self.step + STEPS


def trial_of(value: dict[str, Any], step: int) -> Trial:
    """The trial of a remedy that takes effect before ``step``."""
    code = str(value.get("code", ""))
    quantity = str(value.get("quantity") or "loss")
    given = value.get("threshold")
    return Trial(
        text=str(value.get("text") or value.get("action")),
        code=code,
        step=step,
        quantity=quantity,
        subject=str(value.get("subject", "")),
        threshold=float(given) if isinstance(given, (int, float)) else None,
        side=str(value.get("side", "above")),
        relative=code == "vanishing_gradient",
    )


def judge(run: Measurements, trial: Trial, before: float | None) -> RemedyVerdict:
    """The verdict; ``before`` is what :func:`measure` gave when the remedy was applied."""
    after = measure(run, trial, trial.step + _SETTLING, trial.step + STEPS)
    statistic = f"{trial.quantity} relative to the largest" if trial.relative else trial.quantity
    return RemedyVerdict(
        remedy=trial.text.rstrip("."),
        code=trial.code,
        applied_at=trial.step,
        statistic=statistic,
        subject=trial.subject,
        before=before,
        after=after,
        threshold=trial.threshold,
        verdict=_verdict(trial, before, after),
    )


def measure(run: Measurements, trial: Trial, first: int, last: int) -> float | None:
    """Median of the statistic over a window of steps; None where nothing finite was measured."""
    own = _median(run, trial.quantity, trial.subject, first, last)
    if own is None or not trial.relative:
        return own
    subjects = {
        key.subject for key in run.keys()  # noqa: SIM118
        if key.quantity == trial.quantity and key.subject.endswith("weight")
    }  # fmt: skip
    others = (_median(run, trial.quantity, subject, first, last) for subject in subjects)
    largest = max((value for value in others if value is not None), default=own)
    return own / largest if largest > 0 else None


def _median(run: Measurements, quantity: str, subject: str, first: int, last: int) -> float | None:
    series = run.series(quantity, subject, first=max(0, first), last=last)
    values = np.asarray(series.values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _verdict(trial: Trial, before: float | None, after: float | None) -> str:
    if after is None:
        return "unknown"
    sign = 1.0 if trial.side == "above" else -1.0
    if trial.threshold is not None and trial.relative:
        if sign * (after - trial.threshold) < 0:
            return "recovered"
    elif before is None:
        return "recovered"  # it could not even be measured before
    if before is None or before == after:
        return "unchanged"
    if before <= 0 or after <= 0:
        change = sign * (after - before)
        return "better" if change < 0 else "worse"
    factor = (after / before) ** sign
    if factor <= 0.5:
        return "recovered"
    return "better" if factor < _BETTER else "worse" if factor > 1 / _BETTER else "unchanged"
