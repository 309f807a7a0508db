"""Reading and changing an optimizer's learning rate, momentum and weight decay during a run."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from inspector.capture.wrappers import unwrapped

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
        self,
        optimizer: torch.optim.Optimizer,
        name: str,
        value: float | None,
        *,
        group: int | None = None,
        lead: float | None = None,
    ) -> str:
        """Sets ``lr``, ``momentum`` or ``weight_decay``; None goes back to the first values.

        Args:
            group: position of the only parameter group that is changed; None changes all.
            lead: the learning rate that becomes ``value`` while all others keep their ratios to
                it; None is the first group's. At 0 there are no ratios: all become ``value``.

        Returns:
            What schedulers make of it; empty where there are none.

        Raises:
            CannotSet: the optimizer has no such setting.
        """
        chosen = range(len(optimizer.param_groups)) if group is None else (group,)
        if name == "lr":
            rates = self._rates(optimizer, value, lead)
            if group is not None and value is not None:
                rates[group] = value
            return _set_rates(optimizer, {at: rates[at] for at in chosen})
        for at in chosen:
            first = self._first(name, at)
            _set(optimizer.param_groups[at], name, first if value is None else value, optimizer)
        return ""

    def _first(self, name: str, group: int) -> Any:
        """What a group began with; one that came later goes with the last."""
        known = self._original[name]
        return known[min(group, len(known) - 1)]

    def _rates(
        self, optimizer: torch.optim.Optimizer, value: float | None, lead: float | None
    ) -> list[float]:
        before = _lrs(optimizer)
        if value is None:
            return [float(self._first("lr", at)) for at in range(len(before))]
        lead = before[0] if lead is None else lead
        if lead <= 0:
            return [value] * len(before)
        wanted = [value * old / lead for old in before]
        if before[0] == lead:
            wanted[0] = value
        return wanted


def current(optimizer: torch.optim.Optimizer, name: str, group: int = 0) -> float | None:
    """A setting of a parameter group; None when the optimizer has none of that name."""
    settings = optimizer.param_groups[group]
    found = _momentum(settings) if name == "momentum" else _plain(settings.get(name))
    return None if found is None else float(found)


def _lrs(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(_plain(group["lr"]) or 0.0) for group in optimizer.param_groups]


def _set_rates(optimizer: torch.optim.Optimizer, wanted: dict[int, float]) -> str:
    """Sets the learning rates of some groups, and what schedulers compute them from."""
    before = _lrs(optimizer)
    for at, lr in wanted.items():
        group = optimizer.param_groups[at]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    schedulers = _schedulers(optimizer)
    after = [wanted.get(at, old) for at, old in enumerate(before)]
    return _rescale(optimizer, schedulers, before, after) if schedulers else ""


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
    """Schedulers of the optimizer: nothing points from it to them, so the heap is searched.

    They may know it by the wrapper that a framework has put around it.
    """
    found = []
    for candidate in gc.get_objects():
        with contextlib.suppress(Exception):
            of_some = issubclass(type(candidate), LRScheduler)
            if of_some and unwrapped(candidate.optimizer) is optimizer:
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
    if any(old == 0 != new for old, new in zip(before, after, strict=True)):
        return f"{name} may overwrite it: the rate was 0, so its plan cannot be scaled"
    factors = [new / old if old else 1.0 for old, new in zip(before, after, strict=True)]
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
