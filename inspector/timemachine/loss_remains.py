"""Which of a loss's operations made a bad value, out of what the backward pass leaves of its graph.

Autograd has let go of operands and results by then, not of which operations there were. Values are
those that the script still has names for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from inspector.autograd.walk import Walk, walk
from inspector.events import Origin
from inspector.timemachine.checks import count_nonfinite
from inspector.timemachine.loss_graph import (
    MAKERS,
    behind,
    computed,
    operation_of,
    outside_of,
    place_in_script,
    scripts_frames,
)


def _zero(value: Tensor) -> Tensor:
    return value == 0


def _one(value: Tensor) -> Tensor:
    return value.abs() == 1


def _end_of_arc(value: Tensor) -> Tensor:
    return (value == 0) | (value.abs() > math.pi / 2 - 1e-6)


Check = Callable[[Tensor], Tensor]
# Finite there, with a derivative that is not: how that shows in the operand, and in the result.
# Source: their formulas in PyTorch (tools/autograd/derivatives.yaml).
_STEEP: dict[str, tuple[Check, Check]] = {
    "sqrt": (_zero, _zero),
    "pow": (_zero, _zero),
    "acos": (_one, _end_of_arc),
    "asin": (_one, _end_of_arc),
    "atan2": (_zero, _end_of_arc),
}
# Behind these a bad value may be left out of the loss, while 0 times its derivative is NaN.
_CUTS = {"where", "masked_fill", "nan_to_num", "index_put", "index", "masked_select",
         "masked_scatter"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Remains:
    """A loss that the script has a name for, and what its graph was.

    Attributes:
        own: positions of the nodes that the model has not made.
        values: of the operations that the script has given a name.
    """

    loss: Tensor
    graph: Walk
    own: set[int]
    values: dict[Node, Tensor]

    def named(self, at: int) -> str:
        return operation_of(self.graph.nodes[at])

    def result(self, at: int) -> Tensor | None:
        return self.values.get(self.graph.nodes[at])

    def operand(self, at: int) -> Tensor | None:
        before = self.graph.nodes[at].next_functions[0][0]
        return None if before is None else self.values.get(before)


def suspected_in_loss(end: Node, *, late: bool) -> Origin | None:
    """The operation of the loss that has made its value, or its derivative, non-finite.

    Args:
        end: the last node of the same model, called in the same way.
        late: the script's tensors are those of a later step; only names of operations count.

    Returns:
        None where the script has no loss by a name, or none of its operations comes into question.
    """
    remains = _remains(end)
    if remains is None:
        return None
    if late or not count_nonfinite(remains.loss):
        phase, suspects = "backward", _steep(remains, late=late)
    else:
        phase, suspects = "forward", _makers(remains)
    if not suspects:
        return None
    graph, own = remains.graph, remains.own
    last, *others = sorted(suspects, reverse=True)
    place = place_in_script(graph, last, own)
    also = [f"that of {name}" for name in dict.fromkeys(map(remains.named, others))
            if name != remains.named(last)]  # fmt: skip
    lines = {place_in_script(graph, at, own).line for at in others} - {place.line, 0}
    also += [f"in line {line}" for line in sorted(lines)]
    node = graph.nodes[last].name().rpartition("::")[2]
    return Origin(
        phase=phase,
        op=node if phase == "backward" else remains.named(last),
        in_loss=True,
        file=place.file,
        line=place.line,
        code=place.code,
        how="read from the names in the loss's autograd graph",
        note=f"What it was given is gone: it may be {' or '.join(also)} as well." if also else "",
    )


def _remains(end: Node) -> _Remains | None:
    """Of the scalars that the script has names for the one with the most operations."""
    for frame in scripts_frames():
        scalars = [tensor for _, tensor in computed(frame) if tensor.numel() == 1]
        graphs = [(tensor, walk(tensor.grad_fn)) for tensor in scalars if tensor.grad_fn]
        for loss, graph in sorted(graphs, key=lambda found: -len(found[1].nodes)):
            if graph.complete and (own := outside_of(end, graph)):
                values = {t.grad_fn: t.detach() for f in scripts_frames() for _, t in computed(f)
                          if t.grad_fn is not None}  # fmt: skip
                return _Remains(loss.detach(), graph, own, values)
    return None


def _makers(remains: _Remains) -> set[int]:
    """Those that make NaN out of ordinary numbers; but one whose values say that it has not."""
    return {
        at for at in remains.own
        if remains.named(at) in MAKERS
        and not _all(remains.result(at), torch.isfinite)
        and not _any(remains.operand(at), lambda value: ~torch.isfinite(value))
    }  # fmt: skip


def _steep(remains: _Remains, *, late: bool) -> set[int]:
    """Those whose derivative is infinite at a finite value, or at one that is left out later."""
    found = {at for at in remains.own if remains.named(at) in _STEEP and not _even(remains, at)}
    if not late:
        found = {at for at in found if not _elsewhere(remains, at)}
    return found or {
        at for at in remains.own if remains.named(at) in MAKERS and _is_cut(remains, at)
    }


def _even(remains: _Remains, at: int) -> bool:
    """A power whose derivative is finite at zero."""
    if remains.named(at) != "pow":
        return False
    exponent = getattr(remains.graph.nodes[at], "_saved_exponent", None)
    return not isinstance(exponent, float | int) or exponent >= 1 or exponent == 0


def _elsewhere(remains: _Remains, at: int) -> bool:
    """Whether a value says that the operation was not where it is steep."""
    of_operand, of_result = _STEEP[remains.named(at)]
    if (result := remains.result(at)) is not None:
        return not _any(result, of_result)
    operand = remains.operand(at)
    return operand is not None and not _any(operand, of_operand)


def _is_cut(remains: _Remains, at: int) -> bool:
    """Whether something behind it leaves values out."""
    return bool(_CUTS & set(map(remains.named, behind(remains.graph, at, remains.own))))


def _all(value: Tensor | None, check: Check) -> bool:
    return value is not None and bool(check(value).all())


def _any(value: Tensor | None, check: Check) -> bool:
    return value is not None and bool(check(value).any())
