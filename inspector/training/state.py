"""Everything that decides how training goes on, taken out of a task and put back into one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from inspector.errors import ConfigError
from inspector.training.checkpoints import State, plain
from inspector.training.task import Task


class Part(Protocol):
    """A part of the loop with a state of its own: schedule, loss scaling, early stopping."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def state_of(task: Task, parts: Mapping[str, Part], *, gradients: bool = False) -> State:
    """A copy of weights, buffers, optimizer and parts, of types that are read without executing.

    Args:
        gradients: those of parameters too, since the next step adds to them.
    """
    lost: list[str] = []
    model = task.model
    kept = model.state_dict()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = {
        "model": plain(dict(kept), "model", lost),
        "buffers": plain(
            {name: held for name, held in model.named_buffers() if name not in kept},
            "buffers",
            lost,
        ),
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "gradients": plain(
            {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
            "gradients",
            lost,
        )
        if gradients
        else {},
        "optimizer": plain(task.optimizer.state_dict(), "optimizer", lost),
        "optimizer_type": type(task.optimizer).__name__,
        "groups": [
            [names.get(id(parameter), "") for parameter in group["params"]]
            for group in task.optimizer.param_groups
        ],
        "parts": {name: plain(part.state_dict(), name, lost) for name, part in parts.items()},
    }
    state["lost"] = lost
    return state


def check_fit(task: Task, state: State, source: str) -> None:
    """Raises ConfigError, naming the first difference, when the weights are not this model's."""
    here, there = task.model.state_dict(), state["model"]
    missing, unexpected = sorted(set(here) - set(there)), sorted(set(there) - set(here))
    if missing or unexpected:
        what = f"{missing[0]} is not in it" if missing else f"{unexpected[0]} is not in the model"
        raise ConfigError(
            f"{source} holds weights of another model: {what} ({len(missing)} missing, "
            f"{len(unexpected)} unexpected); resume with the model of that run."
        )
    for name, tensor in here.items():
        if isinstance(tensor, Tensor) and tensor.shape != there[name].shape:
            raise ConfigError(
                f"{source} holds weights of another model: {name} has shape "
                f"{tuple(there[name].shape)} there and {tuple(tensor.shape)} here; "
                "resume with the model of that run."
            )


def restore(task: Task, state: State, parts: Mapping[str, Part]) -> list[str]:
    """Puts :func:`state_of` back, in place.

    Returns:
        Sentences about what could not be taken over.
    """
    notes: list[str] = []
    model = task.model
    lost = {name.removeprefix("model.") for name in state["lost"]}
    model.load_state_dict(
        {name: held for name, held in state["model"].items() if name not in lost}, strict=False
    )
    if lost:
        notes.append(f"Not of a plain type, and so not in the checkpoint: {', '.join(lost)}.")
    with torch.no_grad():
        buffers = dict(model.named_buffers())
        for name, held in state["buffers"].items():
            buffers[name].copy_(held)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in state["frozen"])
        gradient = state["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    for name, part in parts.items():
        if name in state["parts"]:
            part.load_state_dict(state["parts"][name])
        else:
            notes.append(f"The {name} begins anew.")
    if type(task.optimizer).__name__ == state["optimizer_type"]:
        _regroup(model, task.optimizer, state["groups"])
        task.optimizer.load_state_dict(state["optimizer"])
    else:
        notes.append(
            f"The state of {state['optimizer_type']} is of no use to "
            f"{type(task.optimizer).__name__}, which begins without."
        )
    return notes


def _regroup(model: nn.Module, optimizer: optim.Optimizer, groups: list[list[str]]) -> None:
    """Gives the optimizer the groups of the checkpoint, where parameters were added meanwhile."""
    named = dict(model.named_parameters())
    here = {id(parameter): name for name, parameter in named.items()}
    now = [[here.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
    if now == groups or not all(name in named for group in groups for name in group):
        return
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.param_groups.clear()
    optimizer.state.clear()
    for number, group in enumerate(groups):
        of = settings[min(number, len(settings) - 1)]
        optimizer.add_param_group({**of, "params": [named[name] for name in group]})
