"""Applies commands between two steps and answers each with an event."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from inspector.capture.freezing import Freezing
from inspector.capture.kept_gradients import CLEARED, KeptGradients
from inspector.capture.modes import Modes
from inspector.capture.observer import Observer
from inspector.capture.optimizer_groups import document, titles
from inspector.capture.pace import Pace
from inspector.capture.settings import CannotSet, OptimizerSettings, current
from inspector.commands import OF_OPTIMIZERS, Command, Controls, covers_first, target_of
from inspector.errors import CommandError
from inspector.events import CommandApplied, CommandRefused, Event, Notice, Paused, Resumed
from inspector.numerals import short

_LISTED = 4  # changed groups that a note names
OF_THE_LOOP = {
    "schedule": "The script's own loop decides how the learning rate goes on; set lr instead.",
    "accumulate": "How many backward passes make a step is written in the script's own loop.",
}
"""Controls that only a loop itself can follow, and why they are refused where it does not."""


class Conductor(Protocol):
    """A loop that follows the controls in ``OF_THE_LOOP``."""

    def follow(self, name: str, value: Any) -> tuple[Any, str]:
        """Puts a control in force; the effective value and a note. Raises CommandError."""

    def loss_of(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """The loss of a batch by a copy of the model, as the loop computes it."""


class Steering:
    """What is in force, and how it is changed.

    Attributes:
        controls: the controls in force during the step that runs.
        pace: whether training may go on.
        graph_wanted: the autograd graph of the next step was asked for.
        backward_wanted: what was asked for of the next backward pass; None when nothing.
        heeds_stop: the script has asked whether it is to end.
        conductor: the loop, if it follows the controls that only it can.
        saver: writes the checkpoint that the command asks for and gives its path; None where
            nobody can.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        observer: Observer,
        emit: Callable[[Event], None],
    ) -> None:
        self.controls = Controls()
        self.pace = Pace()
        self.graph_wanted = False
        self.backward_wanted: dict[str, Any] | None = None
        self.heeds_stop = False
        self.conductor: Conductor | None = None
        self.saver: Callable[[Any], str] | None = None
        self._observer = observer
        self._emit = emit
        self._model = weakref.ref(model)
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._settings = [OptimizerSettings(optimizer) for optimizer in optimizers]
        self._freezing, self._modes = Freezing(model), Modes(model)
        self._kept = KeptGradients()
        self._anomaly = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())

    def start(self, controls: Controls) -> None:
        """Puts the first controls in force, without events."""
        default = Controls()
        for name in Controls.__slots__:
            value = getattr(controls, name)
            if name in OF_THE_LOOP:  # the loop looks at them when it begins
                self.controls = self.controls.with_value(name, value)
            elif value != getattr(default, name):
                self._set(name, value)

    def follow_optimizer(self, position: int, optimizer: torch.optim.Optimizer) -> None:
        """Steers another optimizer in the place of one: with the script's settings, not ours."""
        self._optimizers[position] = weakref.ref(optimizer)
        self._settings[position] = OptimizerSettings(optimizer)
        if position == 0:
            for name in OF_OPTIMIZERS:
                self.controls = self.controls.with_value(name, None)

    def restore(self) -> None:
        """Gives back what is process-wide, and the model as it was found."""
        self._freezing.release()
        self._modes.release()
        mode, check_nan = self._anomaly
        if torch.is_anomaly_enabled() != mode:
            torch.autograd.set_detect_anomaly(mode, check_nan)

    def apply(self, command: Command) -> None:
        """Applies one command, or refuses it; never raises."""
        try:
            self._emit(getattr(self, f"_do_{command.name}")(command))
        except (CommandError, CannotSet) as error:
            self.refuse(command, str(error))
        except Exception as error:
            self.refuse(command, f"{type(error).__name__}: {error}")

    def step_done(self) -> None:
        """At each boundary that is attended: tells of a control that does not reach the script."""
        if self._kept.cleared(self._alive()):
            self._emit(Notice(message=CLEARED))

    def pause(self, reason: str) -> None:
        """Holds training at this boundary."""
        if not self.pace.paused:
            self.pace.pause(reason)
            self._emit(Paused(reason=reason))

    def release(self) -> None:
        """Goes on to the later boundary at which all ranks are told to."""
        self.pace.resume()
        self._emit(Resumed())

    def refuse(self, command: Command, reason: str) -> None:
        """Answers that a command is not obeyed; ``reason`` is a sentence."""
        self._emit(
            CommandRefused(
                command_id=command.id, name=_title(command), requested=command.value, reason=reason
            )
        )

    def _do_set(self, command: Command) -> Event:
        target = command.target
        before = self._in_force(command.control, target)
        effective, note = self._set(command.control, command.value, target)
        where = titles(self._model(), self._alive()).get(target, "") if target else ""
        return _applied(command, effective, note, where, before)

    def _do_pause(self, command: Command) -> Event:
        answer = _applied(command)
        if not self.pace.paused:
            self._emit(answer)
            self.pace.pause("command")
            return Paused(reason="command")
        return answer

    def _do_resume(self, command: Command) -> Event:
        return self._resume(command, None)

    def _do_run_steps(self, command: Command) -> Event:
        return self._resume(command, command.value)

    def _resume(self, command: Command, steps: int | None) -> Event:
        was_paused = self.pace.paused
        self.pace.resume(steps)
        answer = _applied(command, steps)
        if was_paused:
            self._emit(answer)
            return Resumed()
        return answer

    def _do_stop(self, command: Command) -> Event:
        self.pace.stop()
        note = "" if self.heeds_stop else "waiting for the script to look at watch.should_stop"
        return _applied(command, note=note)

    def _do_checkpoint(self, command: Command) -> Event:
        if self.saver is None:
            raise CommandError(
                "Checkpoints are kept by the built-in loop; call torch.save in the script."
            )
        return _applied(command, self.saver(command.value))

    def _do_capture_graph(self, command: Command) -> Event:
        self.graph_wanted = True
        return _applied(command, note="taken from the next step's loss")

    def _do_capture_backward(self, command: Command) -> Event:
        self.backward_wanted = command.value or {}
        waiting = self.backward_wanted.get("when") == "nonfinite"
        note = "waiting for a non-finite gradient" if waiting else "taken from the next step"
        return _applied(command, note=note)

    def optimizers_document(self, step: int) -> dict[str, Any]:
        """The ``optimizers`` document: what commands can speak of, and what is in force there."""
        return document(self._model(), self._alive(), step)

    def _in_force(self, name: str, target: str) -> Any:
        """What a setting is before it is changed; None where that is not known."""
        if name not in OF_OPTIMIZERS:
            return getattr(self.controls, name, None)
        optimizers = self._alive()
        return _first(_readings(optimizers, name), *addressed(optimizers, target))

    def _set(self, name: str, value: Any, target: str = "") -> tuple[Any, str]:
        """The value in force and a note; raises CommandError or CannotSet."""
        controls = self.controls.with_value(name, value)
        effective, note = getattr(controls, name), ""
        if name in OF_OPTIMIZERS:
            effective, note = self._set_optimizers(name, effective, target)
            controls = controls if covers_first(target) else self.controls
        elif name == "clip":
            self._observer.clip = controls.clip
        elif name == "clip_threshold":
            self._observer.plan.clip_threshold = controls.clip_threshold
        elif name == "zero_grad":
            self._observer.zero_grad = controls.zero_grad
            self._kept.begin(not controls.zero_grad)
        elif name == "detect_anomaly":
            torch.autograd.set_detect_anomaly(controls.detect_anomaly)
        elif name == "max_steps_per_s":
            self.pace.limit(controls.max_steps_per_s)
        elif name == "capture_every":
            self._observer.set_every(controls.capture_every)
        elif name == "frozen":
            note = self._freezing.hold(controls.frozen)
            self._observer.refresh()
        elif name == "eval_modules":
            note = self._modes.hold(controls.eval_modules)
        elif name in OF_THE_LOOP:
            if self.conductor is None:
                raise CannotSet(OF_THE_LOOP[name])
            effective, note = self.conductor.follow(name, effective)
            controls = controls.with_value(name, effective)
        self.controls = controls
        return effective, note

    def _alive(self) -> list[torch.optim.Optimizer]:
        return [o for reference in self._optimizers if (o := reference()) is not None]

    def _set_optimizers(
        self, name: str, value: float | None, target: str
    ) -> tuple[float | None, str]:
        """Sets all, or the optimizer or group of the target; all keep their ratios of rates."""
        optimizers = self._alive()
        chosen, group = addressed(optimizers, target)
        before = _readings(optimizers, name)
        lead = before.get((0, 0)) if chosen is None and name == "lr" else None
        notes: list[str] = []
        refused: list[str] = []
        for at, optimizer in enumerate(optimizers):
            if chosen not in (None, at):
                continue
            try:
                settings = self._settings[at]
                note = settings.apply(optimizer, name, value, group=group, lead=lead)
                notes += [note] if note and note not in notes else []
            except CannotSet as error:
                refused.append(str(error))
        if len(refused) == (len(optimizers) if chosen is None else 1):
            raise CannotSet(" ".join(refused))
        if target or sum(len(one.param_groups) for one in optimizers) > 1:
            notes.insert(0, self._told(name, before, optimizers, ratios=group is None))
        now = _first(_readings(optimizers, name), chosen, group)
        return now, "; ".join(notes + refused)

    def _told(
        self,
        name: str,
        before: Readings,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        ratios: bool,
    ) -> str:
        """Which groups were changed, from what to what."""
        changes = {
            place: (before[place], now)
            for place, now in _readings(optimizers, name).items()
            if before[place] != now
        }
        if not changes:
            return "nothing changed"
        names = titles(self._model(), optimizers)
        told = [
            f"{names[f'{at}/{group}']} {short(old)} → {short(new)}"
            for (at, group), (old, new) in changes.items()
        ]
        rest = f", and {len(told) - _LISTED} more" if len(told) > _LISTED else ""
        text = ", ".join(told[:_LISTED]) + rest
        factors = [new / old if old else 0.0 for old, new in changes.values()]
        kept = ratios and name == "lr" and len(factors) > 1 and min(factors) > 0
        alike = kept and max(factors) <= min(factors) * (1 + 1e-6)
        return text + (f"; each × {short(factors[0])}, so ratios are kept" if alike else "")


Readings = dict[tuple[int, int], float]


def _readings(optimizers: Sequence[torch.optim.Optimizer], name: str) -> Readings:
    """A setting of each optimizer and group that has it."""
    return {
        (at, group): number
        for at, optimizer in enumerate(optimizers)
        for group in range(len(optimizer.param_groups))
        if (number := current(optimizer, name, group)) is not None
    }


def _first(readings: Readings, optimizer: int | None, group: int | None) -> float | None:
    """The reading of the first group that is meant."""
    meant = (
        number
        for (at, place), number in readings.items()
        if optimizer in (None, at) and group in (None, place)
    )
    return next(meant, None)


def addressed(
    optimizers: Sequence[torch.optim.Optimizer], target: str
) -> tuple[int | None, int | None]:
    """The optimizer and the group that a target names; raises CannotSet where there are none."""
    optimizer, group = target_of(target)
    if optimizer is not None and optimizer >= len(optimizers):
        raise CannotSet(
            f"There is no optimizer {optimizer}; the last one is optimizer {len(optimizers) - 1}."
        )
    groups = 0 if optimizer is None else len(optimizers[optimizer].param_groups)
    if group is not None and group >= groups:
        raise CannotSet(
            f"Optimizer {optimizer} has no parameter group {group}; its last one is group "
            f"{groups - 1}."
        )
    return optimizer, group


def _title(command: Command) -> str:
    return command.control or command.name


def _applied(
    command: Command,
    effective: Any = None,
    note: str = "",
    where: str = "",
    before: Any = None,
) -> CommandApplied:
    return CommandApplied(
        command_id=command.id,
        name=_title(command),
        requested=command.value,
        effective=effective,
        before=before,
        note=note,
        target=command.target,
        where=where,
    )
