"""What can be done about a run: remedies with buttons, the origin of a NaN, verdicts, a curve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from inspector.commands import Name
from inspector.diagnosis.finding import Finding
from inspector.events import (
    FaultHealed,
    FaultInjected,
    FaultRevealed,
    Origin,
    RemedyVerdict,
    StoredEvent,
)

_SIGMOID_LIKE = frozenset(("vanishing_gradient", "saturated_activation"))
_NEW_WEIGHTS = frozenset(("vanishing_gradient", "saturated_activation", "dead_relu",
                          "poor_initialization"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Action:
    """A button: the command that it sends, or the settings with which the next run starts."""

    label: str
    about: str
    name: Name = "remedy"
    value: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_new_run(self) -> bool:
        """Whether it cannot be done to a run that is going."""
        return bool(self.settings)


def actions(finding: Finding, config: dict[str, Any]) -> list[Action]:
    """What the app can do about a finding: to the running model first, then in a new run."""
    judged = _judged_by(finding)
    made = [
        Action(
            remedy.text.rstrip("."),
            f"Sets {remedy.control} to {remedy.value} at the next step; after fifty steps you are "
            "told whether it has helped.",
            value={"action": "set", "control": remedy.control, "value": remedy.value,
                   "text": remedy.text, **judged},
        )
        for remedy in finding.remedies
        if remedy.control
    ]  # fmt: skip
    if finding.code in _NEW_WEIGHTS:
        made += _new_weights(finding, judged)
    if finding.code == "frozen_parameters" and finding.module is not None:
        text = f"Unfreeze {finding.module or 'the model'}"
        value = {"action": "unfreeze", "module": finding.module, "text": text, **judged}
        made.append(Action(text, "Its parameters ask for gradients and join the optimizer.",
                           value=value))  # fmt: skip
    if finding.code == "unnormalized_input" and config and not config.get("normalize"):
        made.append(
            Action(
                "Normalise the inputs in a new run",
                "Starts this run again with mean 0 and standard deviation 1 for every feature.",
                settings={"normalize": True},
            )
        )
    return made


def _new_weights(finding: Finding, judged: dict[str, Any]) -> list[Action]:
    saturating = finding.code in _SIGMOID_LIKE
    method, title = ("xavier", "Xavier") if saturating else ("he", "He")
    whole = finding.code == "vanishing_gradient" or not finding.module
    module = "" if whole else _owner(finding)
    where = "all modules" if whole else module
    text = f"Re-initialise {where} ({title})"
    about = (
        "Draws new weights whose size fits the activations, so that gradients keep their size from "
        "module to module. What these weights had learnt is lost."
    )
    value = {"action": "reinitialize", "module": module, "method": method, "text": text, **judged}
    return [Action(text, about, value=value)]


def _owner(finding: Finding) -> str:
    """The module with the weights; a finding may be about the activation behind it."""
    subjects = [e.subject for e in finding.evidence if e.subject.endswith((".weight", ".bias"))]
    if subjects:
        return subjects[0].rpartition(".")[0]
    return (finding.module or "").rpartition(".")[0]


def _judged_by(finding: Finding) -> dict[str, Any]:
    """By which statistic the remedy is judged: the first evidence that was recorded."""
    judged: dict[str, Any] = {"code": finding.code}
    shown = next((e for e in finding.evidence if e.quantity), None)
    if shown is not None:
        judged |= {"quantity": shown.quantity, "subject": shown.subject, "side": shown.side}
        if shown.threshold is not None:
            judged["threshold"] = shown.threshold
    return judged


@dataclass(frozen=True, slots=True)
class OriginCard:
    """The newest origin of a non-finite value, ready to be shown.

    Attributes:
        steps: the rows of the story, as pairs of label and text.
        held: the bad update was not made.
        over: training has gone on since.
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


def origin_card(events: Iterable[StoredEvent]) -> OriginCard | None:
    """The newest origin; None while everything is finite."""
    newest: StoredEvent | None = None
    over = False
    for stored in events:
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
    )


def _story(origin: Origin) -> tuple[tuple[str, str], ...]:
    module = "the model" if origin.module == "" else origin.module
    named = f"{module or 'the loss'} ({origin.module_type})" if origin.module_type else module
    samples = ", ".join(map(str, origin.samples[:12])) + (" …" if len(origin.samples) > 12 else "")
    rows = (
        ("Operation", origin.op + (f" ({origin.kernel})" if origin.kernel else "")),
        ("Pass", origin.phase),
        ("Module", named or ""),
        ("Samples", f"{samples} (of 0 to {origin.batch - 1})" if samples else ""),
        ("Passed on by", " → ".join(origin.chain)),
        ("Found by", f"{origin.how}, in {1000 * origin.seconds:.0f} ms" if origin.seconds else ""),
        ("Note", origin.note),
    )
    return tuple((label, text) for label, text in rows if text)


def _row(tensor: dict[str, Any]) -> dict[str, Any]:
    low, high = tensor.get("low"), tensor.get("high")
    return {
        "Input": tensor.get("name", ""),
        "Shape": " × ".join(map(str, tensor.get("shape", ()))) or "scalar",
        "Type": tensor.get("dtype", ""),
        "Smallest": None if low is None else float(f"{low:.6g}"),
        "Largest": None if high is None else float(f"{high:.6g}"),
        "NaN or inf": tensor.get("nonfinite", 0),
    }


def verdicts(events: Iterable[StoredEvent]) -> list[tuple[int, RemedyVerdict]]:
    """Step and verdict of every remedy, newest first."""
    found = [(s.step, s.event) for s in events if isinstance(s.event, RemedyVerdict)]
    return found[::-1]


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
