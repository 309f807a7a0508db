"""Checkpoints of earlier steps, from the copies that the time machine holds in memory.

It copies every tensor that a step changes. What else a checkpoint needs is small: it is kept beside
each copy, and brought into the form of a checkpoint only when one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from torch import Tensor

from inspector.errors import CommandError
from inspector.timemachine.history import History
from inspector.timemachine.state import StateCopy
from inspector.training.checkpoints import State, plain
from inspector.training.random_numbers import random_numbers
from inspector.training.state import Part
from inspector.training.task import Task


def beside(task: Task, parts: Mapping[str, Part], *, gradients: bool) -> State:
    """What of :func:`inspector.training.state.state_of` the time machine does not copy.

    States of parts stay as they are: numbers, and lists that are replaced rather than changed.

    Args:
        gradients: those of parameters too, since the next step adds to them.
    """
    named = dict(task.model.named_parameters())
    names = {id(parameter): name for name, parameter in named.items()}
    groups = task.optimizer.param_groups
    return {
        "frozen": [name for name, parameter in named.items() if not parameter.requires_grad],
        "gradients": {
            name: parameter.grad.clone()
            for name, parameter in named.items()
            if gradients and parameter.grad is not None
        },
        "groups": [[names.get(id(p), "") for p in group["params"]] for group in groups],
        "param_groups": [
            {key: plain(value, key, []) for key, value in group.items() if key != "params"}
            for group in groups
        ],
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "random": random_numbers(),
    }


def snapshot(history: History, wanted: int | str) -> StateCopy:
    """The copy that the time machine holds of the state before a step, or its ``earliest``.

    Raises:
        CommandError: it is not held any more, or none is.
    """
    held = history.held
    step = held[0] if held and wanted == "earliest" else wanted
    found = next((slot for slot in history.slots if slot.step == step and slot.beside), None)
    if found is None:
        there = f"it holds {' and '.join(map(str, held))} now" if held else "it holds none"
        why = f" ({history.shortage})" if history.shortage and not held else ""
        hint = "; a run keeps them while it is paused" if held else ""
        raise CommandError(
            f"The time machine holds no snapshot of step {wanted}: {there}{why}{hint}."
            if wanted != "earliest"
            else f"The time machine holds no snapshot yet{why}."
        )
    return found


def state_then(task: Task, copied: StateCopy) -> State:
    """The state of :func:`inspector.training.state.state_of` as it was when it was copied.

    Raises:
        CommandError: the model has got other tensors since.
    """
    found = copied.contents(task.model, [task.optimizer])
    if found is None:
        raise CommandError(
            f"The snapshot of step {copied.step} does not fit the model any more, which has other "
            "parameters or buffers now; fork from the present step."
        )
    copies, states = found
    lost: list[str] = []
    later: list[str] = []

    def then(name: str, held: Any) -> Any:
        if isinstance(held, Tensor) and id(held) in copies:
            return copies[id(held)]
        later.append(name)
        return held

    kept = task.model.state_dict(keep_vars=True)
    weights = {name: then(name, held) for name, held in kept.items()}
    rest = {name: b for name, b in task.model.named_buffers() if name not in kept}
    state = dict(copied.beside)
    groups, number = zip(state.pop("param_groups"), state["groups"], strict=True), count()
    return {
        **state,
        "parts": {name: plain(part, name, lost) for name, part in state["parts"].items()},
        "gradients": plain(state["gradients"], "gradients", lost),
        "model": plain(weights, "model", lost),
        "buffers": plain({name: then(name, held) for name, held in rest.items()}, "buffers", lost),
        "optimizer": {
            "state": plain(dict(sorted(states.items())), "optimizer.state", lost),
            "param_groups": [
                {**group, "params": [next(number) for _ in names]} for group, names in groups
            ],
        },
        "optimizer_type": type(task.optimizer).__name__,
        "lost": lost,
        "notes": [
            *state["notes"],
            *(f"{name} is of a later step: it was not in the snapshot." for name in later),
        ],
    }
