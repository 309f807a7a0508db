"""Findings as cards for people: verdict, place, evidence curve, remedies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from inspector.diagnosis.drawing import Drawing, as_bars, over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.place import place
from inspector.numerals import short
from inspector.quantities import QUANTITIES

TITLES = {
    "vanishing_gradient": "Vanishing gradient",
    "exploding_gradient": "Exploding gradient",
    "dead_relu": "Dead ReLU units",
    "saturated_activation": "Saturated activation",
    "nonfinite": "NaN or infinity",
    "missing_zero_grad": "Forgotten zero_grad",
    "lr_too_high": "Learning rate too high",
    "lr_too_low": "Learning rate too low",
    "poor_initialization": "Poor initialisation",
    "double_softmax": "Softmax twice",
    "missing_activation": "Missing activation",
    "wrong_loss": "Loss does not fit the task",
    "unnormalized_input": "Inputs not normalised",
    "frozen_parameters": "Frozen or forgotten parameters",
    "label_mismatch": "Labels do not match",
    "class_imbalance": "Class imbalance",
    "overfitting": "Overfitting",
    "mode_mistake": "Train or eval mode mistaken",
    "no_shuffle": "Data not shuffled",
    "small_batch": "Batch too small to normalise",
    "mixed_samples": "Samples taken for steps",
}


@dataclass(frozen=True, slots=True)
class EvidenceCurve:
    """A recorded series with the limit it passed and the window that was looked at."""

    title: str
    steps: list[int]
    values: list[float | None]
    threshold: float | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class FindingCard:
    """One finding, ready to be shown.

    Attributes:
        heading: what it is, in two or three words.
        place: module, operation, source line and step, as far as they are known.
        because: the heading of the finding that explains it, or empty.
        leads_to: headings of the findings that follow from it.
        controls: remedies that a running training can take now.
        advice: remedies for the script.
    """

    code: str
    level: str
    heading: str
    verdict: str
    place: str
    confidence: float
    seen: tuple[str, ...]
    explanation: str
    reference: str
    because: str
    leads_to: tuple[str, ...]
    controls: tuple[Remedy, ...]
    advice: tuple[Remedy, ...]


def cards(findings: Iterable[Finding]) -> list[FindingCard]:
    """One card each, in the order of the findings."""
    return [_card(finding) for finding in findings]


def heading(code: str) -> str:
    """Words for a code; a user's own code is shown as it is."""
    return TITLES.get(code, code.replace("_", " "))


def curve(run: Any, evidence: Evidence, *, max_points: int = 500) -> EvidenceCurve | None:
    """The series that shows the evidence; None when there is none to draw."""
    if not evidence.quantity:
        return None
    series = run.series(evidence.quantity, evidence.subject, max_points=max_points)
    if not len(series.steps):
        return None
    values = [float(v) if v == v and abs(v) != float("inf") else None for v in series.values]
    return EvidenceCurve(
        evidence.text,
        [int(step) for step in series.steps],
        values,
        evidence.threshold,
        evidence.first,
        evidence.last,
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """Evidence as it is drawn: the statistic with its limits, and the window in steps."""

    drawing: Drawing
    window: tuple[int, int]


def picture(run: Any, evidence: Evidence, *, max_points: int = 500) -> Picture | None:
    """How evidence is drawn; None where there is nothing but a fact in words.

    That is the rule's own drawing, else the recorded series, else the bare number beside its
    threshold.
    """
    drawing = evidence.drawing
    if drawing is None or not drawing.x:
        drawing = _recorded(run, evidence, max_points) or _bare(evidence)
    if drawing is None:
        return None
    if evidence.threshold is not None and not drawing.limits:
        limit = (evidence.threshold, f"limit {short(evidence.threshold, 3)}")
        drawing = dataclasses.replace(drawing, limits=(limit,))
        if drawing.marked:
            drawing = dataclasses.replace(drawing, marked=_beyond(drawing, evidence))
    return Picture(drawing, (evidence.first, evidence.last))


def _beyond(drawing: Drawing, evidence: Evidence) -> tuple[int, ...]:
    """Every bar on the wrong side of the threshold, not only the worst one."""
    sign = 1.0 if evidence.side == "above" else -1.0
    limit = sign * (evidence.threshold or 0.0)
    beyond = (at for at, y in enumerate(drawing.y) if y is not None and sign * y > limit)
    return tuple(sorted({*drawing.marked, *beyond}))


def _recorded(run: Any, evidence: Evidence, max_points: int) -> Drawing | None:
    series = curve(run, evidence, max_points=max_points)
    if series is None or len(series.steps) < 2:
        return None
    known = QUANTITIES.get(evidence.quantity)
    title = known.title if known else evidence.quantity
    values = [float("nan") if value is None else value for value in series.values]
    return over_steps(
        series.steps,
        values,
        f"{title} of {evidence.subject}" if evidence.subject else title,
        log=bool(known and known.log),
    )


def _bare(evidence: Evidence) -> Drawing | None:
    if evidence.value is None or evidence.threshold is None:
        return None
    return as_bars([("this run", evidence.value)], evidence.statistic, marked=("this run",))


def _card(finding: Finding) -> FindingCard:
    return FindingCard(
        code=finding.code,
        level=finding.level,
        heading=finding.heading or heading(finding.code),
        verdict=finding.title,
        place=" · ".join(place(finding)),
        confidence=finding.confidence,
        seen=tuple(evidence.text for evidence in finding.evidence),
        explanation=finding.explanation,
        reference=finding.reference,
        because=heading(finding.consequence_of) if finding.consequence_of else "",
        leads_to=tuple(heading(code) for code in finding.consequences),
        controls=tuple(remedy for remedy in finding.remedies if remedy.control),
        advice=tuple(remedy for remedy in finding.remedies if not remedy.control),
    )
