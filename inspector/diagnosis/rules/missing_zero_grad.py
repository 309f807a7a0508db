"""Gradients of the step before are still there when the next backward pass begins.

Statistic: share of examined steps at whose first backward pass a stepped parameter still had a
non-zero gradient, and at no backward pass before the step had it been cleared (exact; gradient
accumulation clears after each step and stays silent). Without the structure document: backward
passes since ``zero_grad`` that rise step by step.
Source: our own exact check; statically dslinter W5517.
False alarms: none known; momentum "by hand" through kept gradients would be one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import Drawing, over_steps
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "missing_zero_grad"
_CLEARED = 20  # steps in a row that began with no gradients


@register(CODE, share=0.5, steps=2, rising=5)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    facts = run.part("zero_grad")
    checked, kept = int(facts.get("checked_steps", 0)), list(facts.get("kept_steps", ()))
    if checked:
        share = len(kept) / checked
        if len(kept) >= limits["steps"] and share >= limits["share"]:
            yield _finding(
                kept[0],
                0.98,
                Evidence(
                    statistic="share of steps that began with the gradients of the step before",
                    value=share,
                    threshold=limits["share"],
                    quantity="backward_passes",
                    first=kept[0],
                    last=kept[-1],
                    drawing=_piling_up(run, kept),
                ),
            )
            return
    passes = run.series("backward_passes")
    rising = _longest_rise(passes.values)
    # model.zero_grad() passes the optimizer by; the exact check has seen it.
    if (not checked or kept) and rising is not None and rising[1] >= limits["rising"]:
        first = int(passes.steps[rising[0]])
        if _cleared_since(passes.values[sum(rising) + 1 :]):
            return
        yield _finding(
            first,
            0.9,
            Evidence(
                statistic="backward passes piled up in the gradients",
                value=float(np.nanmax(passes.values)),
                threshold=limits["rising"],
                quantity="backward_passes",
                first=first,
                last=int(passes.steps[-1]),
            ),
        )


def _piling_up(run: Observations, kept: list[int]) -> Drawing:
    """Backward passes in the gradients of a step, or steps that began with old gradients."""
    passes = run.series("backward_passes").finite
    if len(passes) > 1 and passes.values[-1] > passes.values[0] + 1:
        return over_steps(
            passes.steps, passes.values, "backward passes summed up in the gradients",
            (1.0, "one pass, as it should be"),
        )  # fmt: skip
    return over_steps(
        kept, range(1, len(kept) + 1), "steps so far that began with old gradients",
        (0.0, "as it should be"),
    )  # fmt: skip


def _finding(step: int, confidence: float, evidence: Evidence) -> Finding:
    return Finding(
        code=CODE,
        level="critical",
        title="Gradients are never cleared: every step adds to those of all steps before.",
        confidence=confidence,
        step=step,
        evidence=(evidence,),
        explanation=(
            "backward() adds to .grad. Without optimizer.zero_grad() the optimizer follows the "
            "sum of all gradients since the start: steps grow and point to the past, which acts "
            "like a learning rate that keeps rising."
        ),
        reference="PyTorch: Zeroing out gradients; dslinter W5517",
        remedies=remedies(CODE),
    )


def _cleared_since(later: np.ndarray) -> bool:
    """Whether every step after the rise began anew, for long enough."""
    return len(later) >= _CLEARED and float(np.nanmax(later)) <= 2


def _longest_rise(values: np.ndarray) -> tuple[int, int] | None:
    """Start and length of the longest run of steps that each rise by the same amount."""
    if len(values) < 3:
        return None
    rises = np.diff(values)
    best, start = (0, 0), 0
    for position in range(1, len(rises) + 1):
        if position == len(rises) or rises[position] != rises[start] or rises[position] <= 0:
            if rises[start] > 0 and position - start > best[1]:
                best = (start, position - start)
            start = position
    return best if best[1] else None
