"""Finds where a non-finite value was born: replays what can be replayed, and says what it did."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from inspector.events import Origin
from inspector.timemachine.calls import OUTPUT, Call
from inspector.timemachine.found import Found
from inspector.timemachine.loss_remains import suspected_in_loss
from inspector.timemachine.replay import GIVEN, Replay, eager
from inspector.timemachine.state import StateCopy, random_state, set_random_state

if TYPE_CHECKING:
    from inspector.timemachine.machine import TimeMachine


def search(
    machine: TimeMachine, model: nn.Module, found: Found, calls: Sequence[Call], *, late: bool
) -> tuple[Origin, Call | None]:
    """The origin, and the batch it happened with; never raises.

    Args:
        calls: those of the step, one for each micro-batch.
        late: the update was made before anybody knew; the state must be that of earlier.
    """
    if not calls:
        return _unknown("the model's call was not seen (compiled, scripted or not called)"), None
    if not all(call.intact for call in calls):
        return _unknown("the batch was overwritten in place before it could be run again"), None
    try:
        basis = _advance(machine, model, found.step) if late else None
        arrived: list[tuple[Origin, Call]] = []
        for call in calls:
            replay = Replay(model, machine.loss_fn, found.buffers)
            if basis is not None:
                replay.take_state(basis)
            origin = replay.run(call)
            outside = call is calls[-1] and (origin is None or origin.phase == "loss")
            if outside and (born := machine.in_loss(found.step)) is not None:
                origin = born
            elif outside and not call.path and (origin is not None or found.loss):
                born = _suspected(replay, call, late=late)
                origin = origin if born is None else _told_apart(origin, born, call)
            if origin is not None:
                arrived.append((dataclasses.replace(origin, held=found.held), call))
                if not call.path or origin.phase not in (GIVEN, "loss"):
                    return arrived[-1]
        if arrived:  # at parts of the model, of which none has made it
            return _between(arrived, calls[-1])
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return _unknown(f"the step could not be run again ({said})"), calls[-1]
    if calls[-1].loss_args is None and calls[-1].gradient is None:
        return _unknown("the loss could not be called again; give watch() its loss_fn"), calls[-1]
    return _unknown("the step, run again, was finite"), calls[-1]


def _suspected(replay: Replay, call: Call, *, late: bool) -> Origin | None:
    """Which of the loss's operations may have made it, as far as is left of them."""
    with contextlib.suppress(Exception):  # whatever calling the model once more raises
        end = replay.end_of(call)
        return None if end is None else suspected_in_loss(end, late=late)
    return None


def _told_apart(arrived: Origin | None, born: Origin, call: Call) -> Origin:
    """The operation of the loss, with the gradient that it has sent into the model."""
    if arrived is None:
        return dataclasses.replace(born, batch=call.batch)
    return dataclasses.replace(
        born,
        value=arrived.value,
        tensors=[{**row, "name": "the loss's gradient"} for row in arrived.tensors],
        samples=arrived.samples,
        batch=arrived.batch,
        seconds=arrived.seconds,
    )


def _between(arrived: Sequence[tuple[Origin, Call]], last: Call) -> tuple[Origin, Call]:
    """What the script's own code has made: the first bad input, or else the last bad gradient."""
    for origin, call in arrived:
        if origin.phase == GIVEN:
            note = (
                f"{call.path} was given it, and no part of the model that was seen before had "
                "returned it: the script's code between them made it"
            )
            return dataclasses.replace(_unknown(note), held=origin.held), call
    origin, call = arrived[-1]
    if call is last:
        return origin, call
    note = (
        f"it arrived as the gradient of what {call.path} had returned, and no part that was seen "
        "after it had made it: the script's code that uses that made it"
    )
    return dataclasses.replace(_unknown(note), held=origin.held), call


def _unknown(note: str) -> Origin:
    return Origin(phase="unknown", how="hooks", note=f"{note}; see the modules' own statistics.")


def _advance(machine: TimeMachine, model: nn.Module, step: int) -> nn.Module | None:
    """A copy of the model as it was before a step that is past: a kept state, trained on."""
    slot = machine.history.newest_good(step)
    if slot is None:
        return None
    between = machine.history.between(slot.step, step - 1) if slot.step < step else []
    return _trained(machine, model, slot, [call for _, calls in between or [] for call in calls])


def _trained(
    machine: TimeMachine, model: nn.Module, slot: StateCopy, calls: Sequence[Call]
) -> nn.Module:
    twin, loss_fn, optimizers = copy.deepcopy((model, machine.loss_fn, machine.optimizers()))
    slot.restore(twin, optimizers)
    random = random_state()
    try:
        for call in calls:
            if call.loss_args is None or loss_fn is None or call.path:
                break
            set_random_state(call.random)
            for optimizer in optimizers:
                optimizer.zero_grad()
            output = twin(*call.args, **call.kwargs)
            given = tuple(output if value is OUTPUT else value for value in call.loss_args)
            named = {k: output if v is OUTPUT else v for k, v in call.loss_kwargs.items()}
            loss_fn(*given, **named).backward()
            for optimizer in optimizers:
                optimizer.step()
    finally:
        set_random_state(random)
    return eager(twin)
