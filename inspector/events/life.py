"""The life of a run: its beginning and end, its epochs, its checkpoints, its pauses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from inspector.events.event import Event, Level, brief
from inspector.numerals import short


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback, outermost first."""

    file: str
    line: int
    function: str
    code: str = ""


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
            parts.append(f"validation loss {short(self.val_loss)}")
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
            f"Stopped early: no validation loss below {short(self.best)} (epoch {self.epoch + 1}) "
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
            best = self.val_loss if self.reason == "best" else None
            loss = "" if best is None else f": validation loss {short(best)}"
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
        changed = ", ".join(f"{name} = {brief(value)}" for name, value in self.changes.items())
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


FAMILY: tuple[type[Event], ...] = (
    RunStarted, RunFinished, RunFailed, EpochFinished, EarlyStopped, CheckpointSaved,
    CheckpointFailed, RunContinued, Paused, Resumed,
)  # fmt: skip
