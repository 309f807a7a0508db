"""Events in the store: their stamps, their JSON, and those of newer versions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from inspector.events import answers, life, recording, trouble
from inspector.events.event import Event
from inspector.events.life import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Event):
    """An event written by a newer version."""

    kind: ClassVar[str] = "unknown"
    original_kind: str = ""
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def text(self) -> str:
        return f"{self.original_kind} (unknown to this version)"


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its stamps.

    Attributes:
        seq: position in the rank's event table, strictly increasing.
        step: the step that was running (or about to run) when it happened, 0-based.
        wall: seconds since 1970 UTC; may jump with the system clock.
        mono_ns: nanoseconds of the training process's monotonic clock.
    """

    seq: int
    step: int
    rank: int
    wall: float
    mono_ns: int
    event: Event


_ALL = life.FAMILY + answers.FAMILY + trouble.FAMILY + recording.FAMILY + (Unknown,)
KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in _ALL}


def encode(event: Event) -> str:
    """The event's fields as JSON (its ``kind`` is stored beside it)."""
    return json.dumps(dataclasses.asdict(event), default=str)


def decode(kind: str, payload: str) -> Event:
    """The event that :func:`encode` wrote; an unknown ``kind`` becomes :class:`Unknown`."""
    fields = json.loads(payload)
    cls = KINDS.get(kind)
    if cls is None:
        return Unknown(original_kind=kind, fields=fields)
    known = {field.name for field in dataclasses.fields(cls)}
    fields = {name: value for name, value in fields.items() if name in known}
    if "frames" in fields:
        fields["frames"] = tuple(Frame(**frame) for frame in fields["frames"])
    return cls(**fields)
