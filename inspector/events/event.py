"""What every event is, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from inspector.numerals import short

Level = Literal["note", "warning", "critical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; ``kind`` names the event in the store, ``level`` its urgency."""

    kind: ClassVar[str] = "event"
    level: ClassVar[Level] = "note"

    @property
    def text(self) -> str:
        """One plain sentence for the event list and the markers."""
        return self.kind


def brief(value: Any) -> str:
    """A value of a control in few letters."""
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return short(value, 6) if isinstance(value, float) else str(value)
