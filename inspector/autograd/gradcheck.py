"""Analytic gradients beside finite differences in float64, of one node or one module.

Central differences: (f(x + εv) − f(x − εv)) / 2ε, where f is the sum of the outputs weighted with
the gradient that arrived. Small inputs are moved element by element, large ones along one random
direction.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from inspector.autograd.calls import Call
from inspector.autograd.portrait import SMALL, plain

STEP = 1e-6
KINK = 1e-3  # slopes to both sides that differ by more, relative to the largest, make a kink
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative; half precision gets 0.05

Gradients = Sequence[Tensor | None]
NO_CALL = (
    "The operation behind this node is not known (a custom autograd function, a compiled part, "
    "or torch older than 2.14): check the module around it instead."
)


def check_node(call: Call | None, incoming: Gradients, outgoing: Gradients) -> dict[str, Any]:
    """Evaluates the operation behind a node again and compares.

    Args:
        incoming: gradients that arrived, one for each output of the operation.
        outgoing: gradients that the node sent on, one for each differentiable input.

    Returns:
        ``kind``; ``reason``: one sentence why it is impossible, else ""; ``inputs``: one record
        for each gradient with ``place, numeric, analytic`` (lists), ``direction`` (whether along
        one direction), ``kink`` (whether slopes to both sides differ, so that any between them is
        right) and ``difference`` (relative); ``difference``: the largest; ``agrees``.
    """
    reason = _obstacle(call, incoming, outgoing)
    if call is None or reason:
        return _impossible("node", reason or NO_CALL)
    places = _differentiable(call, outgoing)
    if places is None:
        return _impossible(
            "node",
            f"The inputs of {call.name} cannot be told apart by their shapes, so it is not "
            "evaluated again.",
        )
    leaves, spec = tree_flatten((call.args, call.kwargs))
    wide = [_wide(leaf) for leaf in leaves]
    weights = [None if g is None else g.double() for g in incoming]
    weight = _size(weights)

    def total(place: int, moved: Tensor) -> Tensor:
        fresh = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in wide]
        fresh[place] = moved
        args, kwargs = tree_unflatten(fresh, spec)
        return _weighted(call.func(*args, **kwargs), weights)

    try:
        with torch.no_grad():
            inputs = [
                _compare(functools.partial(total, place), wide[place], gradient, number, weight)
                for number, (place, gradient) in enumerate(zip(places, outgoing, strict=True))
                if gradient is not None and place is not None
            ]
    except Exception as error:
        return _impossible("node", f"{call.name} cannot be evaluated in float64: {error}")
    return _result("node", inputs)


def check_module(
    module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], weights: Gradients
) -> dict[str, Any]:
    """The same for a copy of a module in float64, with the inputs it was recorded with.

    The analytic gradients are autograd's own in float64. Random operations draw the same numbers
    each time; the module itself is left alone.

    Args:
        weights: gradients that arrived at the module's outputs.
    """
    try:
        twin = copy.deepcopy(module).double()
        leaves, spec = tree_flatten((inputs, kwargs))
        wide = [_wide(leaf) for leaf in leaves]
        named: list[tuple[str, Tensor]] = [
            (f"input {place}", leaf.requires_grad_())
            for place, leaf in enumerate(wide)
            if isinstance(leaf, Tensor) and leaf.is_floating_point()
        ]
        named += [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
        seeded = [None if g is None else g.double() for g in weights]
        weight = _size(seeded)

        def total() -> Tensor:
            args, keywords = tree_unflatten(wide, spec)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return _weighted(twin(*args, **keywords), seeded)

        with torch.enable_grad():
            tensors = [tensor for _, tensor in named]
            analytic = torch.autograd.grad(total(), tensors, allow_unused=True)
        compared = [
            {**_compare(_moved(total, tensor), tensor, gradient, number, weight), "name": name}
            for number, ((name, tensor), gradient) in enumerate(zip(named, analytic, strict=True))
            if gradient is not None
        ]
    except Exception as error:
        return _impossible("module", f"A float64 copy of the module cannot be run: {error}")
    return _result("module", compared)


def _obstacle(call: Call | None, incoming: Gradients, outgoing: Gradients) -> str:
    if call is None:
        return NO_CALL
    if call.args is None:
        return "Its inputs are too large to have been kept for a second evaluation."
    if call.random:
        return f"{call.name} draws random numbers, so a second evaluation would differ."
    present = [gradient for gradient in (*incoming, *outgoing) if gradient is not None]
    if any(not gradient.isfinite().all() for gradient in present):
        return "The gradients here are not finite: there is nothing to compare."
    leaves = tree_leaves((call.args, call.kwargs))
    if any(isinstance(leaf, Tensor) and not _finite(leaf) for leaf in leaves):
        return "Its inputs are not finite, so no finite difference exists here."
    return ""


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _differentiable(call: Call, outgoing: Gradients) -> list[int | None] | None:
    """Which flat argument each outgoing gradient belongs to; None when that is ambiguous."""
    leaves = tree_leaves((call.args, call.kwargs))
    floating = [
        place
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    ]
    if len(floating) < len(outgoing):
        return None
    places: list[int | None] = []
    for place, gradient in zip(floating, outgoing, strict=False):
        # Broadcasting operations send the unexpanded shape: that of the argument itself.
        if gradient is not None and gradient.shape != leaves[place].shape:
            return None
        places.append(place)
    return places


def _wide(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        copied = leaf.detach().clone()
        return copied.double() if copied.is_floating_point() else copied
    if isinstance(leaf, torch.dtype) and leaf.is_floating_point:
        return torch.float64
    return leaf


def _weighted(outputs: Any, weights: Gradients) -> Tensor:
    results = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    terms = [
        (result * weight).sum()
        for result, weight in zip(results, weights, strict=False)
        if weight is not None
    ]
    return torch.stack(terms).sum()


def _size(weights: Gradients) -> float:
    return sum(float(weight.abs().sum()) for weight in weights if weight is not None)


def _moved(total: Callable[[], Tensor], tensor: Tensor) -> Callable[[Tensor], Tensor]:
    def at(value: Tensor) -> Tensor:
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.copy_(value)
            try:
                return total()
            finally:
                tensor.copy_(kept)

    return at


def _compare(
    total: Callable[[Tensor], Tensor],
    point: Tensor,
    gradient: Tensor,
    number: int,
    weight: float,
) -> dict[str, Any]:
    point = point.detach()
    along_one = point.numel() > SMALL
    directions = _random_direction(point) if along_one else _unit_directions(point)
    slopes = [_slopes(total, point, direction) for direction in directions]
    numeric = [(left + right) / 2 for left, right in slopes]
    wide = gradient.double()
    analytic = [float((wide * direction).sum()) for direction in directions]
    largest = max((abs(value) for value in (*numeric, *analytic)), default=0.0)
    apart, kink = 0.0, False
    for (left, right), claimed in zip(slopes, analytic, strict=True):
        if abs(left - right) > KINK * max(largest, 1e-12):
            kink = True  # any slope between the two is right
            low, high = sorted((left, right))
            apart = max(apart, low - claimed, claimed - high)
        else:
            apart = max(apart, abs((left + right) / 2 - claimed))
    # Where the terms of a sum cancel, what is left is rounding of the gradients' own precision.
    tolerance = TOLERANCE.get(gradient.dtype, 0.05)
    rounding = 100 * torch.finfo(gradient.dtype).eps * weight
    difference = apart / max(largest, rounding / tolerance, 1e-12)
    return {
        "place": number,
        "name": "",
        "numeric": [plain(value) for value in numeric],
        "analytic": [plain(value) for value in analytic],
        "direction": along_one,
        "kink": kink,
        "difference": plain(difference),
        "agrees": difference < tolerance,
    }


def _slopes(
    total: Callable[[Tensor], Tensor], point: Tensor, direction: Tensor
) -> tuple[float, float]:
    """Slopes to the left and to the right; their mean is the central difference."""
    size = STEP * max(1.0, float((point * direction).abs().max()))
    below, here, above = (float(total(point + k * size * direction)) for k in (-1, 0, 1))
    return (here - below) / size, (above - here) / size


def _unit_directions(point: Tensor) -> list[Tensor]:
    eye = torch.eye(point.numel(), dtype=point.dtype, device=point.device)
    return [row.reshape(point.shape) for row in eye]


def _random_direction(point: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(point.shape, generator=generator, dtype=torch.float64).to(point.device)
    return [made / made.norm()]


def _impossible(kind: str, reason: str) -> dict[str, Any]:
    return {"kind": kind, "reason": reason, "inputs": [], "difference": None, "agrees": False}


def _result(kind: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    if not inputs:
        return _impossible(kind, "No gradient leaves it, so there is nothing to compare.")
    differences = [entry["difference"] for entry in inputs]
    worst = max((d for d in differences if isinstance(d, float)), default=None)
    return {
        "kind": kind, "reason": "", "inputs": inputs, "difference": worst,
        "agrees": all(entry["agrees"] for entry in inputs),
    }  # fmt: skip
