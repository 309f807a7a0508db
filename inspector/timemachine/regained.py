"""The batch of a step in which the machine was at rest, out of what autograd has saved of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inspector.autograd.saved import address, unpacked
from inspector.autograd.walk import walk
from inspector.timemachine.calls import Call


@dataclass(frozen=True, slots=True)
class Usual:
    """What a model was called with before the rest, in one call a step: a single tensor."""

    dtype: torch.dtype
    sizes: tuple[int, ...]

    def fits(self, tensor: Tensor) -> bool:
        """Whether it may be such a batch."""
        return tensor.dtype is self.dtype and tensor.dim() > 0 and tensor.shape[1:] == self.sizes


def usual(calls: list[Call]) -> Usual | None:
    """How the model was called; None where that was in another way than with one batch."""
    if len(calls) != 1 or calls[0].path or calls[0].kwargs or len(calls[0].args) != 1:
        return None
    (batch,) = calls[0].args
    plain = type(batch) is Tensor and batch.dim() > 0 and not batch.is_nested
    return Usual(batch.dtype, tuple(batch.shape[1:])) if plain else None


def regained(loss: Tensor, like: Usual, model: nn.Module) -> Call | None:
    """The call, if the loss's graph is there and holds one tensor that can be the batch.

    It may be what the model's first lines have made of the batch. Random numbers and autocast of
    then are not known: only a replay that finds something is to be believed.
    """
    if loss.grad_fn is None:
        return None
    own = {address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, Tensor] = {}
    for tensor in _data(loss.grad_fn):
        if like.fits(tensor) and (place := address(tensor)) not in own:
            found[place] = tensor
    if len(found) != 1:
        return None
    call = Call()
    call.keep(tuple(found.values()), {})
    return call


def _data(root: Any) -> Iterator[Tensor]:
    """What operations have saved and no autograd graph has made, before it was reshaped."""
    for node in walk(root).nodes:
        for tensor in unpacked(node):
            if not tensor.requires_grad:
                yield tensor if tensor._base is None else tensor._base
