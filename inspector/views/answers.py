"""Whether a run has mended what an earlier run's finding said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inspector.diagnosis.finding import Finding
from inspector.numerals import short
from inspector.views.findings import heading

STEPS = 50
_BETTER = 0.8


@dataclass(frozen=True, slots=True)
class Answer:
    """The earlier run, what was changed, and the verdict as in ``RemedyVerdict``.

    ``verdict`` is empty while there are too few steps to tell.
    """

    run: str
    changed: str
    verdict: str
    text: str


def answer(follows: Mapping[str, Any], found: Iterable[Finding], steps: int) -> Answer | None:
    """Compares the findings of a run with the one that it answers; None if it answers none.

    Args:
        follows: ``RunConfig.follows``.
        found: the findings of the run.
        steps: how many steps it has made.
    """
    if not follows.get("code"):
        return None
    code, run = str(follows["code"]), str(follows.get("run", ""))
    name = heading(code)
    if steps < STEPS:
        text = f"{name}, found in {run}: the verdict comes after {STEPS} steps."
        return Answer(run, str(follows.get("text", "")), "", text)
    still = next((one for one in found if one.code == code and one.level != "note"), None)
    before = _number(follows)
    if still is None:
        text = f"{name}, found in {run}{before}, is not found in this run any more."
        return Answer(run, str(follows.get("text", "")), "recovered", text)
    verdict, after = _compared(follows, still)
    text = f"{name}, found in {run}{before}, is found in this run, too{after}."
    return Answer(run, str(follows.get("text", "")), verdict, text)


def _compared(follows: Mapping[str, Any], still: Finding) -> tuple[str, str]:
    shown = still.evidence[0] if still.evidence else None
    old = follows.get("value")
    if shown is None or shown.value is None or shown.statistic != follows.get("statistic"):
        return "unchanged", ""
    after = f" ({short(shown.value, 3)})"
    if not isinstance(old, (int, float)) or old <= 0 or shown.value <= 0:
        return "unchanged", after
    factor = (shown.value / old) ** (1 if shown.side == "above" else -1)
    better, worse = factor < _BETTER, factor > 1 / _BETTER
    return ("better" if better else "worse" if worse else "unchanged"), after


def _number(follows: Mapping[str, Any]) -> str:
    value, threshold = follows.get("value"), follows.get("threshold")
    if not isinstance(value, (int, float)):
        return ""
    limit = f", limit {short(threshold, 3)}" if isinstance(threshold, (int, float)) else ""
    return f" ({follows.get('statistic')} {short(value, 3)}{limit})"
