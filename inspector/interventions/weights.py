"""New initial weights, and parameters that learn again, in a running model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture.parameters import plain
from inspector.errors import CommandError

_GAINS: dict[type[nn.Module], float] = {
    nn.Tanh: 5 / 3,
    nn.ReLU: math.sqrt(2),
    nn.ReLU6: math.sqrt(2),
    nn.LeakyReLU: math.sqrt(2),
    nn.ELU: math.sqrt(2),
    nn.GELU: math.sqrt(2),
    nn.SiLU: math.sqrt(2),
    nn.Sigmoid: 4.0,
}
"""The sigmoid's slope is 1/4 at most: with a gain of 4 it carries the gradient as tanh does."""


def reinitialize(
    model: nn.Module, optimizers: Sequence[Any], module: str, method: str
) -> list[str]:
    """Draws new weights for a module and all inside it ("" is the whole model).

    ``he`` keeps the variance of ReLU networks (He et al. 2015), ``xavier`` that of saturating
    ones (Glorot & Bengio 2010), scaled by the slope of the activation that follows; biases become
    zero, or after a sigmoid what cancels its mean of 1/2. Optimizer state of these weights is
    forgotten.

    Returns:
        The paths of the modules that were changed.

    Raises:
        CommandError: there is no such module, or nothing in it has weights.
    """
    order = [(plain(path), part) for path, part in model.named_modules() if _is_simple(part)]
    prefix = f"{module}." if module else ""
    changed = []
    for position, (path, part) in enumerate(order):
        inside = path == module or path.startswith(prefix)
        if not inside or not isinstance(getattr(part, "weight", None), nn.Parameter):
            continue
        after = _activation(order[position + 1 :])
        before = _activation(reversed(order[:position]))
        if _draw(part, method, after, before):
            changed.append(path)
            _forget(optimizers, part)
    if not changed:
        raise CommandError(f"Expected a module with weights at {module!r}, but found none there.")
    return changed


def unfreeze(model: nn.Module, optimizers: Sequence[Any], module: str) -> list[str]:
    """Lets all parameters in a module learn; those in no optimizer join the first one.

    Raises:
        CommandError: all of them learn already.
    """
    known = {
        id(p) for optimizer in optimizers for group in optimizer.param_groups
        for p in group["params"]
    }  # fmt: skip
    prefix = f"{module}." if module else ""
    changed, joining = [], []
    for name, parameter in model.named_parameters():
        if not plain(name).startswith(prefix):
            continue
        if not parameter.requires_grad:
            parameter.requires_grad_(True)
            changed.append(plain(name))
        if id(parameter) not in known:
            joining.append(parameter)
            changed.append(plain(name))
    if joining:
        optimizers[0].add_param_group({"params": joining})
    if not changed:
        raise CommandError(f"All parameters of {module or 'the model'} are trained already.")
    return list(dict.fromkeys(changed))


def _is_simple(module: nn.Module) -> bool:
    return not list(module.children())


def _activation(modules: Any) -> type[nn.Module] | None:
    """The activation before the next module with weights; None if none is a module."""
    for _, module in modules:
        if type(module) in _GAINS:
            return type(module)
        if isinstance(getattr(module, "weight", None), nn.Parameter):
            return None
    return None


def _draw(
    module: nn.Module, method: str, after: type[nn.Module] | None, before: type[nn.Module] | None
) -> bool:
    weight = module.weight
    assert isinstance(weight, Tensor)
    bias = getattr(module, "bias", None)
    with torch.no_grad():
        if weight.dim() < 2:  # normalisation: ones and zeros
            reset = getattr(module, "reset_parameters", None)
            if not callable(reset):
                return False
            reset()
            return True
        if isinstance(module, nn.Embedding):
            module.reset_parameters()
            return True
        if method == "he":
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        else:
            gain = _GAINS.get(after, 1.0) if after is not None else 1.0
            nn.init.xavier_normal_(weight, gain)
        if isinstance(bias, Tensor):
            bias.zero_()
            if before is nn.Sigmoid:
                bias.sub_(0.5 * weight.flatten(1).sum(dim=1))
    return True


def _forget(optimizers: Sequence[Any], module: nn.Module) -> None:
    for optimizer in optimizers:
        for parameter in module.parameters(recurse=False):
            optimizer.state.pop(parameter, None)
