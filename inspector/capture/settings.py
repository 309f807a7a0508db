"""Reading and changing an optimizer's learning rate, momentum and weight decay during a run."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

_SCHEDULED_KEYS = ("initial_lr", "max_lr", "min_lr")
_SCHEDULER_LISTS = ("base_lrs", "max_lrs", "_last_lr")


class CannotSet(Exception):
    """The optimizer has no such setting; the message is a sentence."""


class OptimizerSettings:
    """The settings of one optimizer, with the values it had at first to go back to."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._original = {
            "lr": [_plain(group.get("lr")) for group in optimizer.param_groups],
            "momentum": [_momentum(group) for group in optimizer.param_groups],
            "weight_decay": [group.get("weight_decay") for group in optimizer.param_groups],
        }

    def apply(
        self, optimizer: torch.optim.Optimizer, name: str, value: float | None
    ) -> tuple[float | None, str]:
        """Sets ``lr``, ``momentum`` or ``weight_decay``; None goes back to the first values.

        Returns:
            The value in force in the first parameter group, and a note (empty if all is plain).

        Raises:
            CannotSet: the optimizer has no such setting.
        """
        groups = optimizer.param_groups
        note = ""
        if name == "lr":
            note = self._set_lr(optimizer, value)
        else:
            original = self._original[name]
            for position, group in enumerate(groups):
                first = original[position] if position < len(original) else original[-1]
                _set(group, name, first if value is None else value, optimizer)
        return current(optimizer, name), note

    def _set_lr(self, optimizer: torch.optim.Optimizer, value: float | None) -> str:
        groups = optimizer.param_groups
        before = [float(_plain(group["lr"]) or 0.0) for group in groups]
        first = self._original["lr"]
        if value is None:
            wanted = [float(first[i] if i < len(first) else first[-1]) for i in range(len(groups))]
        elif before[0] > 0:
            wanted = [value * old / before[0] for old in before]
            wanted[0] = value
        else:
            wanted = [value] * len(groups)
        for group, lr in zip(groups, wanted, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        notes = []
        if len(set(before)) > 1 and value is not None:
            notes.append("parameter groups keep their ratios")
        if schedulers := _schedulers(optimizer):
            notes.append(_rescale(optimizer, schedulers, before, wanted))
        return "; ".join(notes)


def current(optimizer: torch.optim.Optimizer, name: str) -> float | None:
    """A setting of the first parameter group; None when the optimizer has none of that name."""
    group = optimizer.param_groups[0]
    found = _momentum(group) if name == "momentum" else _plain(group.get(name))
    return None if found is None else float(found)


def _set(group: dict[str, Any], name: str, value: Any, optimizer: torch.optim.Optimizer) -> None:
    if name == "momentum" and "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif name in group:
        if name == "momentum" and isinstance(optimizer, torch.optim.RMSprop) and value > 0:
            for parameter in group["params"]:  # made only when momentum was there at the start
                state = optimizer.state.get(parameter)
                if state and "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
        group[name] = value
    else:
        raise CannotSet(f"{type(optimizer).__name__} has no {name.replace('_', ' ')}.")


def _momentum(group: dict[str, Any]) -> Any:
    return group["betas"][0] if "betas" in group else group.get("momentum")


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, torch.Tensor) else value


def _schedulers(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Schedulers of the optimizer: nothing points from it to them, so the heap is searched."""
    found = []
    for candidate in gc.get_objects():
        with contextlib.suppress(Exception):
            if issubclass(type(candidate), LRScheduler) and candidate.optimizer is optimizer:
                found.append(candidate)
    return found


def _rescale(
    optimizer: torch.optim.Optimizer,
    schedulers: list[Any],
    before: list[float],
    after: list[float],
) -> str:
    """Scales what schedulers compute from, so that they go on from the new value."""
    name = type(schedulers[0]).__name__
    if any(old == 0 for old in before):
        return f"{name} may overwrite it: the rate was 0, so its plan cannot be scaled"
    factors = [new / old for old, new in zip(before, after, strict=True)]
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        for key in _SCHEDULED_KEYS:
            if isinstance(group.get(key), float):
                group[key] *= factor
    for scheduler in schedulers:
        for key in _SCHEDULER_LISTS:
            values = vars(scheduler).get(key)
            if isinstance(values, list) and len(values) == len(factors):
                scaled = [v * f for v, f in zip(values, factors, strict=True)]
                setattr(scheduler, key, scaled)
    return f"{name} goes on from this value"
