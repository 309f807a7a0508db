"""What happened to a run: the origin of a NaN, verdicts of remedies, faults that were injected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inspector.events import (
    CommandApplied,
    CommandRefused,
    FaultHealed,
    FaultInjected,
    FaultRevealed,
    NonFinite,
    Origin,
    RemedyVerdict,
    StoredEvent,
)
from inspector.numerals import short

_NAMED = 3  # groups that a sentence lists
_ITS_LINE = (
    "torch.autograd.set_detect_anomaly(True) names it, and so does watch(…, loss_fn=criterion) "
    "where the loss is a module"
)


@dataclass(frozen=True, slots=True)
class OriginCard:
    """The newest origin of a non-finite value, ready to be shown.

    Attributes:
        steps: the rows of the story, as pairs of label and text.
        held: the bad update was not made.
        over: training has gone on since.
        missed: why an earlier step is not the one that is told, and what helps; else empty.
    """

    step: int
    title: str
    code: str
    rows: tuple[tuple[str, str], ...]
    tensors: tuple[dict[str, Any], ...]
    report: str
    held: bool
    over: bool
    found: bool
    missed: str = ""


def origin_card(events: Iterable[StoredEvent]) -> OriginCard | None:
    """The newest origin; None while everything is finite."""
    newest: StoredEvent | None = None
    first: int | None = None
    over = False
    for stored in events:
        if isinstance(stored.event, NonFinite) and first is None:
            first = stored.step
        if isinstance(stored.event, Origin):
            newest, over = stored, False
        elif stored.event.kind in ("resumed", "rewound", "run_finished", "run_failed"):
            over = over or newest is not None
    if newest is None:
        return None
    origin = newest.event
    assert isinstance(origin, Origin)
    return OriginCard(
        step=newest.step,
        title=origin.text,
        code=origin.code,
        rows=_story(origin),
        tensors=tuple(_row(tensor) for tensor in origin.tensors),
        report=origin.report,
        held=origin.held,
        over=over,
        found=origin.phase != "unknown",
        missed=_missed(origin, newest.step, first),
    )


def _story(origin: Origin) -> tuple[tuple[str, str], ...]:
    module = "the model" if origin.module == "" else origin.module
    kind = origin.module_type if module is not None or origin.in_loss else ""
    if module is None and origin.module_type and origin.phase != "data":
        module = "the loss"
    named = f"{module} ({kind})" if kind else module
    samples = ", ".join(map(str, origin.samples[:12])) + (" …" if len(origin.samples) > 12 else "")
    outside = origin.phase == "loss"  # as the title says: nothing else is known of it
    rows = (
        ("Operation", origin.op + (f" ({origin.kernel})" if origin.kernel else "")),
        ("Pass", origin.phase),
        ("Module", named or ""),
    ) * (not outside) + (
        ("Samples", f"{samples} (of 0 to {origin.batch - 1})" if samples else ""),
        ("Passed on by", " → ".join(name.rpartition("::")[2] for name in origin.chain)),
        ("Its line", _ITS_LINE * outside),
        ("Found", f"{origin.how}, in {1000 * origin.seconds:.0f} ms" if origin.seconds else ""),
        ("Note", origin.note),
    )
    return tuple((label, text) for label, text in rows if text)


def _missed(origin: Origin, step: int, first: int | None) -> str:
    """What helps where the values had been non-finite before the step that could be run again."""
    if origin.phase != "parameters" or first is None or first >= step:
        return ""
    return (
        f"Step {first:,}, where it began, could not be run again: give the loss to "
        "watch(…, loss_fn=criterion), or set “On NaN or infinity” to pause or skip, and steps "
        "under 1 ms are looked into as well."
    )


def _row(tensor: dict[str, Any]) -> dict[str, Any]:
    low, high = tensor.get("low"), tensor.get("high")
    return {
        "Input": tensor.get("name", ""),
        "Shape": " × ".join(map(str, tensor.get("shape", ()))) or "scalar",
        "Type": tensor.get("dtype", ""),
        "Smallest": "–" if low is None else short(low, 6),
        "Largest": "–" if high is None else short(high, 6),
        "NaN or inf": tensor.get("nonfinite", 0),
    }


def verdicts(events: Iterable[StoredEvent]) -> list[tuple[int, RemedyVerdict]]:
    """Step and verdict of every remedy, newest first."""
    found = [(s.step, s.event) for s in events if isinstance(s.event, RemedyVerdict)]
    return found[::-1]


def refused(events: Iterable[StoredEvent], *commands: str) -> tuple[int, str] | None:
    """Step and reason, where the newest answer to one of these commands was a refusal."""
    newest: tuple[int, str] | None = None
    for stored in events:
        event = stored.event
        if isinstance(event, (CommandApplied, CommandRefused)) and event.name in commands:
            reason = event.reason if isinstance(event, CommandRefused) else ""
            newest = (stored.step, reason) if reason else None
    return newest


def tried(found: Mapping[str, Any]) -> str:
    """Whose learning rate the finder has moved; empty where there is one only."""
    where, moved = str(found.get("where", "")), [str(title) for title in found.get("moved", ())]
    if not where and len(moved) < 2:
        return ""
    lead, *others = moved or [where]
    if not others:
        return f"Tried on {lead}; everything else rested."
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    rested = f" Other optimizers than {where} rested." if where else ""
    return (
        f"The rate is that of {lead}; {', '.join(others[:_NAMED])}{more} "
        f"kept {'its' if len(others) == 1 else 'their'} ratio to it.{rested}"
    )


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One fault of the run's history; ``title`` is empty while it is hidden."""

    number: int
    step: int
    title: str
    healed: int | None


def faults(events: Iterable[StoredEvent]) -> list[FaultRow]:
    """Every fault that was injected, newest first, in what may be shown of it."""
    rows: dict[int, FaultRow] = {}
    for stored in events:
        event = stored.event
        if isinstance(event, FaultInjected):
            rows[event.number] = FaultRow(event.number, stored.step, event.fault, None)
        elif isinstance(event, FaultRevealed) and event.number in rows:
            row = rows[event.number]
            rows[event.number] = FaultRow(row.number, row.step, event.fault, row.healed)
        elif isinstance(event, FaultHealed) and event.number in rows:
            row = rows[event.number]
            rows[event.number] = FaultRow(row.number, row.step, row.title, stored.step)
    return sorted(rows.values(), key=lambda row: -row.number)
