"""Small readings of optimizers and gradients, taken in every step."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from inspector.capture.transfer import Scalar, scalar


def zero_grad(reference: weakref.ref[Any], *args: Any, **kwargs: Any) -> Any:
    optimizer = reference()
    return None if optimizer is None else type(optimizer).zero_grad(optimizer, *args, **kwargs)


def states(parameters: tuple[Tensor, ...]) -> tuple[int | None, ...]:
    """Identity and version of each gradient: they change when a backward pass adds to it."""
    found: list[int | None] = []
    for parameter in parameters:
        gradient = parameter.grad
        found += (id(gradient), None if gradient is None else gradient._version)
    return tuple(found)


def rates(group: dict[str, Any]) -> dict[str, Scalar]:
    """What the optimizer steps with, by quantity."""
    found: dict[str, Any] = {"lr": group.get("lr")}
    if "momentum" in group:
        found["momentum"] = group["momentum"]
    elif "betas" in group:
        found["momentum"] = group["betas"][0]
    found["weight_decay"] = group.get("weight_decay")
    for name, value in found.items():
        if type(value) is not float:
            found[name] = _number(value)
    if None in found.values():
        found = {name: value for name, value in found.items() if value is not None}
    return found


def _number(value: Any) -> Scalar | None:
    if isinstance(value, Tensor):
        return scalar(value.detach())
    return None if value is None else float(value)
