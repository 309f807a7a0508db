"""What came of commands: applied or refused, remedies judged, faults put in, rates tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from inspector.events.event import Event, Level, brief
from inspector.numerals import short


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandApplied(Event):
    """A command took effect before ``step``; ``effective`` is the value in force.

    ``before`` is the value until then, None where there was none or it is not known. ``target`` is
    the optimizer or parameter group that it spoke of (see ``Command``), empty for all, and
    ``where`` its name for people.
    """

    kind: ClassVar[str] = "command_applied"
    command_id: str
    name: str
    requested: Any = None
    effective: Any = None
    before: Any = None
    note: str = ""
    target: str = ""
    where: str = ""

    @property
    def text(self) -> str:
        note = f" ({self.note})" if self.note else ""
        where = f" of {self.where or self.target}" if self.target else ""
        return f"{self.name}{where}{self._value()}{note}"

    def _value(self) -> str:
        if self.before is not None and self.before != self.effective and "→" not in self.note:
            now = "off" if self.effective is None else brief(self.effective)
            return f" {brief(self.before)} → {now}"
        kept = self.effective is None or self.name == "checkpoint"  # a file's name says nothing
        return "" if kept else f" = {brief(self.effective)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRefused(Event):
    """A command was not applied; ``reason`` is a sentence."""

    kind: ClassVar[str] = "command_refused"
    level: ClassVar[Level] = "warning"
    command_id: str
    name: str
    requested: Any = None
    reason: str = ""

    @property
    def text(self) -> str:
        return f"{self.name} refused: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyVerdict(Event):
    """Whether a remedy has helped, so many steps after it was applied.

    ``before`` and ``after`` are medians of the statistic over as many steps on either side;
    ``verdict`` is recovered, better, unchanged, worse or unknown.
    """

    kind: ClassVar[str] = "remedy_verdict"
    remedy: str
    code: str = ""
    applied_at: int = 0
    statistic: str = ""
    subject: str = ""
    before: float | None = None
    after: float | None = None
    threshold: float | None = None
    verdict: str = "unknown"

    @property
    def text(self) -> str:
        of = f" of {self.subject}" if self.subject else ""
        if self.before is None or self.after is None:
            return f"{self.remedy}: no verdict, {self.statistic}{of} was not measured."
        change = f"{self.statistic}{of} went from {short(self.before, 3)} to {short(self.after, 3)}"
        return f"{self.remedy}: {self.verdict}; {change}."


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """A fault was put into the running model on purpose; a hidden one has no name yet."""

    kind: ClassVar[str] = "fault_injected"
    fault: str = ""
    number: int = 0

    @property
    def text(self) -> str:
        return f"Fault injected: {self.fault}." if self.fault else "A hidden fault was injected."


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRevealed(Event):
    """What the hidden fault was, and since when."""

    kind: ClassVar[str] = "fault_revealed"
    fault: str
    since: int = 0
    number: int = 0

    @property
    def text(self) -> str:
        return f"The fault since step {self.since}: {self.fault}."


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultHealed(Event):
    """What a fault had changed is as it was before; a fault that stays hidden has no name."""

    kind: ClassVar[str] = "fault_healed"
    fault: str = ""
    number: int = 0

    @property
    def text(self) -> str:
        return f"Healed: {self.fault}." if self.fault else "The hidden fault was healed."


@dataclass(frozen=True, slots=True, kw_only=True)
class LrFound(Event):
    """The learning rate finder is done; its curve is the document ``lr_finder`` of this step.

    ``target`` is the optimizer or parameter group whose rate was tried (see ``Command``), empty
    for all, and ``where`` its name for people.
    """

    kind: ClassVar[str] = "lr_found"
    suggestion: float | None = None
    steps: int = 0
    note: str = ""
    target: str = ""
    where: str = ""

    @property
    def text(self) -> str:
        found = "none" if self.suggestion is None else short(self.suggestion, 3)
        of = f" of {self.where}" if self.where else ""
        return f"Suggested learning rate{of}: {found} ({self.steps} trial steps)."


FAMILY: tuple[type[Event], ...] = (
    CommandApplied, CommandRefused, RemedyVerdict, FaultInjected, FaultRevealed, FaultHealed,
    LrFound,
)  # fmt: skip
