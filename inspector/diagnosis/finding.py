"""What a rule says: a frozen, JSON-able finding."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from inspector.diagnosis.drawing import Drawing
from inspector.events import Level
from inspector.numerals import short

CODES = (
    "vanishing_gradient",
    "exploding_gradient",
    "dead_relu",
    "saturated_activation",
    "nonfinite",
    "missing_zero_grad",
    "lr_too_high",
    "lr_too_low",
    "poor_initialization",
    "double_softmax",
    "missing_activation",
    "wrong_loss",
    "unnormalized_input",
    "frozen_parameters",
    "label_mismatch",
    "class_imbalance",
    "overfitting",
    "mode_mistake",
    "no_shuffle",
    "small_batch",
    "mixed_samples",
)
"""The codes of the built-in rules; a user's own rules may use others."""

LEVELS: tuple[Level, ...] = ("note", "warning", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The number a finding rests on, and where to see it.

    Attributes:
        statistic: what was computed, in words: ``share of units that never fired``.
        value: what it was; None where the fact is not a number.
        threshold: the limit it passed; None for exact facts.
        side: which side of the threshold is wrong.
        quantity, subject: the recorded series that shows it, or empty.
        first, last: the window of steps that was looked at.
        drawing: the statistic itself, where the recorded series is not yet what is compared
            with the threshold.
    """

    statistic: str
    value: float | None = None
    threshold: float | None = None
    side: Literal["above", "below"] = "above"
    quantity: str = ""
    subject: str = ""
    first: int = 0
    last: int = 0
    drawing: Drawing | None = None

    @property
    def text(self) -> str:
        """One line for people."""
        parts = [self.statistic]
        if self.value is not None:
            parts.append(f"= {short(self.value, 3)}")
        if self.threshold is not None:
            parts.append(f"(limit {short(self.threshold, 3)})")
        if self.last > self.first:
            parts.append(f"in steps {self.first:,}–{self.last:,}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What helps.

    Attributes:
        text: the advice, as an imperative sentence.
        control: the control that a ``set`` command changes now, or empty.
        value: the value to set it to.
        code: lines of PyTorch for the script, or empty.
        unfreezes: unfreezing the finding's module, and bringing it into the optimizer, is it.
    """

    text: str
    control: str = ""
    value: Any = None
    code: str = ""
    unfreezes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        code: what it is; one of :data:`CODES` for the built-in rules.
        level: ``note`` is advice, ``warning`` costs results, ``critical`` ruins them.
        title: the verdict in one sentence.
        module: path as in ``named_modules()``; None when it concerns the run as a whole.
        op, file, line: the operation and the source line, where they are known.
        step: the step at which it began, 0-based.
        confidence: from 0 to 1.
        evidence: the numbers it rests on, the strongest first.
        explanation: why this hurts, for a student.
        reference: paper or tool that the rule comes from.
        remedies: what helps, the best first.
        consequences: codes of other findings that follow from this one.
        consequence_of: the code of the finding that explains this one, or None.
        heading: what it is in two or three words, where those of the code do not fit; or empty.
        symptom: that something is wrong, but not what: whatever is serious explains it.
        ranks: where it was seen in a distributed run, the surest rank first; empty otherwise.
    """

    code: str
    level: Level
    title: str
    confidence: float
    module: str | None = None
    op: str = ""
    file: str = ""
    line: int = 0
    step: int = 0
    evidence: tuple[Evidence, ...] = ()
    explanation: str = ""
    reference: str = ""
    remedies: tuple[Remedy, ...] = ()
    consequences: tuple[str, ...] = ()
    consequence_of: str | None = None
    heading: str = ""
    symptom: bool = False
    ranks: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)
