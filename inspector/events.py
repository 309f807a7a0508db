"""Everything that can happen to a run besides numbers: one frozen dataclass per kind of event.

An event is stored with the rank, the step at which it happened, the wall-clock time and a
monotonic time; its own fields are JSON. Readers meet events of newer versions: an unknown kind
becomes :class:`Unknown`, unknown fields are ignored.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

VERSION = 1

Level = Literal["note", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback, outermost first."""

    file: str
    line: int
    function: str
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; ``kind`` names the event in the store, ``level`` its urgency."""

    kind: ClassVar[str] = "event"
    level: ClassVar[Level] = "note"

    @property
    def text(self) -> str:
        """One plain sentence for the event list and the markers."""
        return self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """Recording began."""

    kind: ClassVar[str] = "run_started"
    device: str = "cpu"
    resumed_at: int | None = None

    @property
    def text(self) -> str:
        return f"Run started on {self.device}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """Recording ended in good order: all steps done, stopped early or by hand, or closed."""

    kind: ClassVar[str] = "run_finished"
    reason: str = "completed"  # completed, stopped, closed, early_stopped

    @property
    def text(self) -> str:
        return f"Run {self.reason.replace('_', ' ')}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The user's model, data or loss raised; ``frames`` holds the user's own lines only.

    ``phase`` is one of build, data, forward, backward, step.
    """

    kind: ClassVar[str] = "run_failed"
    level: ClassVar[Level] = "critical"
    error: str
    message: str
    phase: str = ""
    module: str | None = None
    frames: tuple[Frame, ...] = ()
    traceback: str = ""

    @property
    def text(self) -> str:
        where = f" in {self.phase}" if self.phase else ""
        return f"Run failed{where}: {self.error}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandApplied(Event):
    """A command took effect before ``step``; ``effective`` is the value in force.

    ``target`` is the optimizer or parameter group that it spoke of (see ``Command``), empty for
    all, and ``where`` its name for people.
    """

    kind: ClassVar[str] = "command_applied"
    command_id: str
    name: str
    requested: Any = None
    effective: Any = None
    note: str = ""
    target: str = ""
    where: str = ""

    @property
    def text(self) -> str:
        kept = self.effective is None or self.name == "checkpoint"  # a file's name says nothing
        value = "" if kept else f" = {_short(self.effective)}"
        note = f" ({self.note})" if self.note else ""
        where = f" of {self.where or self.target}" if self.target else ""
        return f"{self.name}{where}{value}{note}"


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
class NonFinite(Event):
    """NaN or infinity appeared. ``where`` is activation, loss, gradient, parameter or backward.

    ``module`` is the first module in forward order whose output was non-finite (for gradients:
    the module owning the first such parameter). ``op``, ``file`` and ``line`` are known when
    anomaly detection named the backward function and the forward call that created it.
    """

    kind: ClassVar[str] = "nonfinite"
    level: ClassVar[Level] = "critical"
    where: str
    module: str | None = None
    module_type: str = ""
    parameter: str | None = None
    op: str = ""
    file: str = ""
    line: int = 0
    code: str = ""
    count: int = 0
    policy: str = ""  # what follows: paused, continues, skipped

    @property
    def text(self) -> str:
        at = f" (called at {self.file}:{self.line})" if self.file else ""
        if self.op and self.where == "backward":
            return f"Non-finite gradient born in {self.op}{at}."
        name = self.parameter or ("the model" if self.module == "" else self.module)
        subject = f" of {name}" if name is not None else ""
        kind = f" ({self.module_type})" if self.module_type else ""
        born = f", born in {self.op}{at}" if self.op else ""
        return f"Non-finite {self.where}{subject}{kind}{born}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin(Event):
    """The step was run again, and this is where its first NaN or infinity was born.

    ``phase`` is forward, backward, loss (outside the model), data (it was in the batch),
    parameters (an earlier update made it) or unknown. ``op`` is the operation, in a backward pass
    its autograd function. ``tensors`` are its inputs: name, shape, dtype, smallest and largest
    finite value (low, high), number of non-finite ones. ``samples`` are positions in the batch.
    ``chain`` lists the operations that passed it on. ``how`` says what could be run again;
    ``report`` is the folder of the reproducing script, relative to the run directory.
    """

    kind: ClassVar[str] = "origin"
    level: ClassVar[Level] = "critical"
    phase: str = "unknown"
    op: str = ""
    kernel: str = ""
    module: str | None = None
    module_type: str = ""
    in_loss: bool = False
    file: str = ""
    line: int = 0
    code: str = ""
    value: str = "NaN"
    tensors: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    samples: list[int] = dataclasses.field(default_factory=list)
    batch: int = 0
    chain: list[str] = dataclasses.field(default_factory=list)
    how: str = ""
    note: str = ""
    held: bool = False
    report: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        if self.phase == "unknown":
            return f"Origin of the non-finite value not found: {self.note}"
        kind = f" ({self.module_type})" if self.module_type else ""
        module = "the model" if self.module == "" else self.module
        of = f" of {module}{kind}" if module is not None else f" in the loss{kind}"
        at = f" at {self.file}:{self.line}" if self.file else ""
        if self.phase in ("data", "parameters"):
            return f"{self.value} was already in {self.op}{self._in_samples}."
        if self.phase == "loss":
            return "The loss, outside the model, sent a non-finite gradient into it."
        return f"{self.value} born in {self.op} ({self.phase}){of}{at}{self._in_samples}."

    @property
    def _in_samples(self) -> str:
        if not self.samples:
            return ""
        shown = ", ".join(map(str, self.samples[:6])) + (", …" if len(self.samples) > 6 else "")
        word = "sample" if len(self.samples) == 1 else "samples"
        return f", {word} {shown} of {self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound(Event):
    """Parameters, buffers and optimizer state were put back as they were before ``to_step``."""

    kind: ClassVar[str] = "rewound"
    level: ClassVar[Level] = "warning"
    to_step: int
    reason: str = "command"

    @property
    def text(self) -> str:
        return f"Training was put back to where it was before step {self.to_step}."


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
        change = f"{self.statistic}{of} went from {self.before:.3g} to {self.after:.3g}"
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

    Attributes:
        target: the optimizer or parameter group whose rate was tried, as of a ``Command``.
        where: its name; empty for all.
    """

    kind: ClassVar[str] = "lr_found"
    suggestion: float | None = None
    steps: int = 0
    note: str = ""
    target: str = ""
    where: str = ""

    @property
    def text(self) -> str:
        found = "none" if self.suggestion is None else f"{self.suggestion:.3g}"
        of = f" of {self.where}" if self.where else ""
        return f"Suggested learning rate{of}: {found} ({self.steps} trial steps)."


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFinished(Event):
    """One pass over the training part ended; values are those of the whole epoch."""

    kind: ClassVar[str] = "epoch_finished"
    epoch: int
    val_loss: float | None = None
    val_accuracy: float | None = None

    @property
    def text(self) -> str:
        parts = [f"Epoch {self.epoch + 1} finished"]
        if self.val_loss is not None:
            parts.append(f"validation loss {self.val_loss:.4g}")
        if self.val_accuracy is not None:
            parts.append(f"validation accuracy {self.val_accuracy:.1%}")
        return ", ".join(parts) + "."


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopped(Event):
    """Training ended since the validation loss had not fallen for ``patience`` epochs.

    ``best`` is the lowest validation loss, ``epoch`` (0-based) when it was reached.
    """

    kind: ClassVar[str] = "early_stopped"
    patience: int
    best: float
    epoch: int

    @property
    def text(self) -> str:
        return (
            f"Stopped early: no validation loss below {self.best:.4g} (epoch {self.epoch + 1}) "
            f"for {self.patience} epochs."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    """A checkpoint was written; ``path`` is relative to the run directory.

    ``at`` is the number of steps it has completed, ``reason`` is last, best, every, command or
    snapshot, ``val_loss`` the newest validation loss that it knows, ``size`` its bytes.
    """

    kind: ClassVar[str] = "checkpoint_saved"
    path: str
    at: int | None = None
    reason: str = ""
    val_loss: float | None = None
    size: int = 0

    @property
    def text(self) -> str:
        if self.reason in ("last", "best"):
            known = self.reason == "best" and self.val_loss is not None
            loss = f": validation loss {self.val_loss:.4g}" if known else ""
            return f"{self.reason.capitalize()} checkpoint saved{loss}."
        step = "" if self.at is None else f" of step {self.at:,}"
        return f"Checkpoint{step} saved."


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed(Event):
    """A checkpoint could not be written, and training went on; told once until one succeeds."""

    kind: ClassVar[str] = "checkpoint_failed"
    level: ClassVar[Level] = "warning"
    path: str
    error: str

    @property
    def text(self) -> str:
        return f"Checkpoint {self.path} could not be written: {self.error}; training goes on."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContinued(Event):
    """The run goes on from a checkpoint of another one.

    ``parent`` is the name of that run (empty for a file from elsewhere), ``at`` the number of
    steps completed there, ``changes`` what is set differently from here on. ``notes`` say what
    could not be taken over exactly.
    """

    kind: ClassVar[str] = "run_continued"
    parent: str
    at: int
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def text(self) -> str:
        changed = ", ".join(f"{name} = {_short(value)}" for name, value in self.changes.items())
        what = f"Forked from {self.parent}" if changed else f"Goes on from {self.parent}"
        notes = "".join(f" {note}" for note in self.notes)
        return f"{what} at step {self.at}{f' with {changed}' if changed else ''}.{notes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Event):
    """Training waits at a step boundary; ``reason`` is command, steps_done or nonfinite."""

    kind: ClassVar[str] = "paused"
    reason: str = "command"

    @property
    def text(self) -> str:
        why = {"nonfinite": " at a non-finite value", "steps_done": " after the steps asked for"}
        return f"Paused{why.get(self.reason, '')}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """Training goes on after a pause."""

    kind: ClassVar[str] = "resumed"

    @property
    def text(self) -> str:
        return "Resumed."


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped(Event):
    """The optimizer did not step (GradScaler found non-finite gradients, or a step was held).

    The first ones of a run have an event each; later ones when their number has doubled, and at
    the end of the run. ``in_a_row`` counts those since the last step that was made, ``total`` all
    of the run. ``scale`` is GradScaler's factor, ``loss`` what was recorded in the try.
    """

    kind: ClassVar[str] = "step_skipped"
    reason: str
    in_a_row: int = 1
    total: int = 0
    scale: float | None = None
    loss: str = ""

    @property
    def text(self) -> str:
        loss = f"; the loss was {self.loss}" if self.loss else ""
        if self.in_a_row < 2:
            total = f" ({self.total:,} in all)" if self.total > 1 else ""
            return f"Step skipped{total}: {self.reason}{loss}."
        rest = f", {self.total:,} in all" if self.total > self.in_a_row else ""
        return f"{self.in_a_row:,} tries in a row without a step{rest}: {self.reason}{loss}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(Event):
    """One of our own probes raised; it was switched off, training went on."""

    kind: ClassVar[str] = "probe_failed"
    level: ClassVar[Level] = "warning"
    probe: str
    error: str
    traceback: str = ""

    @property
    def text(self) -> str:
        return f"Probe {self.probe} failed and was switched off: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryDropped(Event):
    """The store could not keep up or could not write; ``rows`` rows of telemetry are missing."""

    kind: ClassVar[str] = "telemetry_dropped"
    level: ClassVar[Level] = "warning"
    rows: int
    reason: str

    @property
    def text(self) -> str:
        return f"{self.rows} rows of telemetry dropped: {self.reason}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChanged(Event):
    """A probe now runs every ``every`` steps, to keep the cost of watching within its budget."""

    kind: ClassVar[str] = "schedule_changed"
    probe: str
    every: int
    reason: str = ""

    @property
    def text(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        steps = "at every step" if self.every == 1 else f"every {self.every:,} steps"
        return f"Measured {steps}: {self.probe}{why}."


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCaptured(Event):
    """The autograd graph of the step's loss was stored as a document of kind ``graph``."""

    kind: ClassVar[str] = "graph_captured"
    nodes: int

    @property
    def text(self) -> str:
        return f"Autograd graph captured ({self.nodes} nodes)."


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardCaptured(Event):
    """A backward pass was stored node by node, as a document of kind ``backward``."""

    kind: ClassVar[str] = "backward_captured"
    nodes: int
    nonfinite: bool = False

    @property
    def text(self) -> str:
        found = ", with non-finite gradients" if self.nonfinite else ""
        return f"Backward pass captured ({self.nodes} nodes{found})."


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """A sentence for the user that fits no other kind."""

    kind: ClassVar[str] = "notice"
    message: str

    @property
    def text(self) -> str:
        return self.message


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


KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        RunStarted, RunFinished, RunFailed, CommandApplied, CommandRefused, NonFinite,
        EpochFinished, EarlyStopped, CheckpointSaved, CheckpointFailed, RunContinued, Paused,
        Resumed,
        StepSkipped, ProbeFailed, TelemetryDropped, ScheduleChanged, GraphCaptured,
        BackwardCaptured, Origin, Rewound, RemedyVerdict, FaultInjected, FaultRevealed,
        FaultHealed, LrFound, Notice, Unknown,
    )
}  # fmt: skip


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


def _short(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
