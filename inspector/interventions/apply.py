"""Applies the commands that change more than a control, between two steps."""

from __future__ import annotations

import dataclasses
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inspector.capture.optimizer_groups import titles
from inspector.capture.settings import CannotSet
from inspector.capture.steering import addressed
from inspector.commands import Command
from inspector.errors import CommandError
from inspector.events import (
    CommandApplied,
    CommandRefused,
    FaultHealed,
    FaultInjected,
    FaultRevealed,
    LrFound,
)
from inspector.faults import FAULTS
from inspector.interventions.verdicts import STEPS, Trial, judge, measure, trial_of
from inspector.interventions.weights import reinitialize, unfreeze
from inspector.numerals import short
from inspector.store.reader import Run
from inspector.timemachine.checks import has_nonfinite
from inspector.timemachine.state import StateCopy, random_state, set_random_state

if TYPE_CHECKING:
    from inspector.recorder import Recorder
    from inspector.training.faults import Ward

_ACTIVATIONS = frozenset(
    ("Relu", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish", "Softplus", "Sigmoid", "Tanh",
     "Hardtanh", "Hardswish", "Hardsigmoid")
)  # fmt: skip


@dataclasses.dataclass(slots=True)
class Injected:
    """A fault that is in the model.

    Attributes:
        state: of model and optimizers before it.
    """

    fault: str
    number: int
    step: int
    hidden: bool
    heal: Callable[[], None]
    state: StateCopy


class Interventions:
    """One for each recorder; what it does happens in the training thread, between two steps."""

    def __init__(
        self, recorder: Recorder, model: nn.Module, run_path: Path, *, loss_fn: Any, loader: Any
    ) -> None:
        self._recorder = recorder
        self._model = weakref.ref(model)
        self._loss_fn = loss_fn if isinstance(loss_fn, nn.Module) else None
        self._loader = loader
        self._run_path = run_path
        self._faults: list[Injected] = []
        self._count = 0
        self._trials: list[tuple[Trial, float | None]] = []

    def apply(self, command: Command) -> None:
        """Applies one command, or refuses it; never raises."""
        try:
            getattr(self, f"_do_{command.name}")(command)
        except (CommandError, CannotSet) as error:
            self._refuse(command, str(error))
        except Exception as error:
            self._refuse(command, f"{type(error).__name__}: {error}")

    @property
    def titles(self) -> list[str]:
        """The faults that are in the model."""
        return [FAULTS[injected.fault].title for injected in self._faults]

    @property
    def due(self) -> int | None:
        """The step at which the next verdict is due."""
        return self._trials[0][0].due if self._trials else None

    def at_boundary(self) -> None:
        """Gives the verdicts that are due."""
        if self._trials and self._recorder.step >= self._trials[0][0].due:
            trial, before = self._trials.pop(0)
            with self._measurements() as run:
                self._recorder.event(judge(run, trial, before))

    def close(self) -> None:
        """Heals what is still broken: the model is given back as a run without faults leaves it."""
        for injected in reversed(self._faults):
            injected.heal()
        self._faults.clear()
        self._loss_fn = self._loader = None

    # ------------------------------------------------------------ remedies

    def _do_remedy(self, command: Command) -> None:
        value = dict(command.value)
        recorder, model, optimizers = self._recorder, self._need_model(), self._optimizers()
        trial = trial_of(value, recorder.step)
        with self._measurements() as run:
            before = measure(run, trial, trial.step - STEPS, trial.step - 1)
        note = ""
        if value["action"] == "set":
            control, wanted = str(value["control"]), value.get("value")
            recorder.steering.apply(dataclasses.replace(
                command, name="set", control=control, value=wanted
            ))  # fmt: skip
        elif value["action"] == "reinitialize":
            method = str(value.get("method", "he"))
            kept = random_state()
            torch.manual_seed(random.Random(command.id).getrandbits(60))  # alike on every rank
            try:
                changed = reinitialize(model, optimizers, str(value.get("module", "")), method)
            finally:
                set_random_state(kept)
            note = f"{len(changed)} modules, {method}"
        else:
            note = ", ".join(self._unfreeze(model, str(value.get("module", "")))[:4])
        if value["action"] != "set":
            title = f"{value['action']} {value.get('module') or 'the model'}"
            self._answer(command, name=title, note=note)
        self._trials.append((trial, before))
        self._trials.sort(key=lambda waiting: waiting[0].due)

    def _unfreeze(self, model: nn.Module, module: str) -> list[str]:
        """Lets a module learn; what the control ``frozen`` holds there is taken off it."""
        steering = self._recorder.steering
        held = steering.controls.frozen
        released = [
            path
            for path in held
            if f"{path}.".startswith(f"{module}." if module else "")
            or f"{module}.".startswith(f"{path}.")
        ]
        if not released:
            return unfreeze(model, self._optimizers(), module)
        kept = [path for path in held if path not in released]
        steering.apply(Command(name="set", control="frozen", value=kept))
        return released

    # ------------------------------------------------------------ faults

    def _do_fault(self, command: Command) -> None:
        action = command.value["action"]
        if action == "inject":
            self._inject(command)
            return
        chosen = [f for f in self._faults if command.value.get("number") in (None, f.number)]
        if not chosen:
            raise CommandError("There is no fault to reveal or heal.")
        note = ""
        for injected in reversed(chosen):
            title = FAULTS[injected.fault].title
            if action == "reveal":
                injected.hidden = False
                event: Any = FaultRevealed(fault=title, since=injected.step, number=injected.number)
            else:
                note = self._heal(injected) or note
                event = FaultHealed(fault="" if injected.hidden else title, number=injected.number)
            self._recorder.event(event)
        self._store_faults()
        self._answer(command, name=f"fault: {action}", note=note)

    def _inject(self, command: Command) -> None:
        from inspector.training.faults import inject

        name, hidden = str(command.value["fault"]), bool(command.value.get("hidden"))
        if name == "random":
            # Not of the training's random numbers, and the same on every rank.
            name = random.Random(command.id).choice(list(FAULTS))
        recorder, state = self._recorder, StateCopy()
        state.take(self._need_model(), self._optimizers(), recorder.step)
        heal = inject(name, self._ward())
        self._count += 1
        self._faults.append(Injected(name, self._count, recorder.step, hidden, heal, state))
        self._store_faults()
        recorder.event(
            FaultInjected(fault="" if hidden else FAULTS[name].title, number=self._count)
        )
        self._answer(command, name="fault: inject")

    def _ward(self) -> Ward:
        """What faults are put into."""
        from inspector.training.faults import Ward

        recorder, model = self._recorder, self._need_model()
        with self._measurements() as run:
            seen = set((run.document("structure") or {}).get("operations", ()))
        fused = any(isinstance(part, nn.RNNBase | nn.RNNCellBase) for part in model.modules())
        return Ward(
            model, self._optimizers(), self._loss_fn,
            lambda on: setattr(
                recorder.observer, "zero_grad", on and recorder.steering.controls.zero_grad
            ),
            calls_functions=bool(seen & _ACTIVATIONS) and not fused,
        )  # fmt: skip

    def _heal(self, injected: Injected) -> str:
        """Takes a fault away; what it has wrecked is put back, of which the result tells.

        Faults that came later and overwrite the same things are put in again on top.
        """
        from inspector.training.faults import inject

        self._faults.remove(injected)
        later = [fault for fault in self._faults if fault.number > injected.number]
        above = [fault for fault in later if FAULTS[fault.fault].overwrites]
        for fault in reversed(above):
            fault.heal()
        injected.heal()
        model, optimizers = self._need_model(), self._optimizers()
        wrecked = FAULTS[injected.fault].wrecks or has_nonfinite(model.parameters())
        restored = wrecked and injected.state.restore(model, optimizers)
        if restored:
            self._recorder.timemachine.history.clear()
            for fault in later:
                fault.state = injected.state
        for fault in above:
            fault.heal = inject(fault.fault, self._ward())
        return f"weights and optimizer are those of step {injected.step}" if restored else ""

    def _store_faults(self) -> None:
        rows = [
            {"fault": f.fault, "number": f.number, "step": f.step, "hidden": f.hidden}
            for f in self._faults
        ]
        self._recorder.writer.document("faults", self._recorder.step, {"faults": rows})

    # ------------------------------------------------------------ trials and rewinding

    def _do_lr_finder(self, command: Command) -> None:
        from inspector.training.lr_finder import find_lr, loader_batches

        model, optimizers = self._need_model(), self._optimizers()
        conductor = self._recorder.steering.conductor
        loss_fn = self._loss_fn or (conductor.loss_of if conductor is not None else None)
        if loss_fn is None:
            raise CommandError(
                "The learning rate finder calls the loss again: give watch() a loss module as "
                "loss_fn."
            )
        wanted = command.value or {}
        steps = int(wanted.get("steps", 100))
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        built_in = isinstance(self._loader, torch.utils.data.DataLoader)
        batches = loader_batches(self._loader, device) if built_in else self._kept_batches()
        chosen, group = addressed(optimizers, command.target)
        names = titles(model, optimizers)
        moved = [
            names[f"{at}/{number}"]
            for at, optimizer in enumerate(optimizers)
            for number in range(len(optimizer.param_groups))
            if chosen in (None, at) and group in (None, number)
        ]
        curve = find_lr(
            model,
            optimizers if chosen is None else [optimizers[chosen]],
            loss_fn,
            batches,
            group=group,
            low=float(wanted.get("low", 1e-6)),
            high=float(wanted.get("high", 10.0)),
            steps=steps,
        )
        recorder = self._recorder
        told = {"target": command.target, "where": names.get(command.target, "")}
        document = curve.document() | told | {"moved": moved}
        recorder.writer.document("lr_finder", recorder.step, document)
        found = LrFound(suggestion=curve.suggestion, steps=len(curve.lrs), note=curve.note, **told)
        recorder.event(found)
        self._answer(command, effective=curve.suggestion, where=told["where"])

    def _kept_batches(self) -> list[tuple[Any, Any]]:
        """The batches that the time machine still has, of a loop that is not ours."""
        calls = [call for _, calls in self._recorder.timemachine.history.calls for call in calls]
        return [
            (call.args[0], call.loss_args[1])
            for call in calls
            if len(call.args) == 1 and call.loss_args is not None and len(call.loss_args) == 2
            and call.intact
        ]  # fmt: skip

    def _do_rewind(self, command: Command) -> None:
        wanted = command.value or {}
        step = self._recorder.timemachine.rewind("command")
        if step is None:
            shortage = self._recorder.timemachine.history.shortage
            why = f": {shortage}" if shortage else ""
            raise CommandError(f"There is no earlier state to go back to{why}.")
        note = ""
        if (factor := wanted.get("lr_factor")) is not None:
            optimizer = self._optimizers()[0]
            lr = float(optimizer.param_groups[0]["lr"]) * float(factor)
            self._recorder.steering.apply(
                Command(name="set", control="lr", value=lr, id=f"{command.id}-lr")
            )
            note = f"learning rate {short(lr, 3)}"
        self._answer(command, effective=step, note=note)
        if wanted.get("resume"):
            self._recorder.steering.apply(Command(name="resume", id=f"{command.id}-resume"))

    # ------------------------------------------------------------ small parts

    def _measurements(self) -> Run:
        self._recorder.writer.flush()
        return Run(self._run_path)

    def _need_model(self) -> nn.Module:
        model = self._model()
        if model is None:
            raise CommandError("The model is gone; the run is about to end.")
        return model

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        found = self._recorder.timemachine.optimizers()
        if not found:
            raise CommandError("The optimizer is gone; the run is about to end.")
        return found

    def _answer(
        self,
        command: Command,
        *,
        name: str = "",
        effective: Any = None,
        note: str = "",
        where: str = "",
    ) -> None:
        self._recorder.event(
            CommandApplied(
                command_id=command.id,
                name=name or command.name,
                effective=effective,
                note=note,
                target=command.target,
                where=where,
            )
        )

    def _refuse(self, command: Command, reason: str) -> None:
        self._recorder.event(
            CommandRefused(command_id=command.id, name=command.name, reason=reason)
        )
