"""Which calls of a step get data, and which get what a watched model has made itself."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from inspector.capture.activations import tensors_in

_OUTPUTS = 8  # remembered, of the last calls
_NO_BATCH = ("label", "target", "mask")  # in the names of what goes with a batch


def batch_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What a model was called with: its first tensor, by keyword one that is no label or mask."""
    named = {
        name: value for name, value in kwargs.items() if not any(part in name for part in _NO_BATCH)
    }
    given = tensors_in((args, named or kwargs))
    return next((tensor for tensor in given if not tensor.is_nested), None)


class Calls:
    """Counts the calls of each model in a step, such as those of a GAN's two.

    Attributes:
        fed: paths of the models that have been given data at some time.
    """

    def __init__(self) -> None:
        self.fed: set[str] = set()
        self._step = -1
        self._count: Counter[str] = Counter()
        self._made: deque[StorageWeakRef] = deque(maxlen=_OUTPUTS)

    def enter(self, path: str, inputs: Tensor, step: int) -> tuple[str, int] | None:
        """The model and its how-many-eth call of this step; None for what a model has made.

        A ``detach()`` hides no origin, since it shares the memory; a copy does.
        """
        if step != self._step:
            self._step = step
            self._count.clear()
        call = path, self._count[path]
        self._count[path] += 1
        if inputs.grad_fn is not None or self._is_made(inputs):
            return None
        self.fed.add(path)
        return call

    def leave(self, output: Tensor) -> None:
        """Remembers what a model has made, as long as it is in memory."""
        if _has_storage(output):
            self._made.append(StorageWeakRef(output.untyped_storage()))  # type: ignore[no-untyped-call]

    def _is_made(self, inputs: Tensor) -> bool:
        if not self._made or not _has_storage(inputs):
            return False
        place = inputs.untyped_storage()._cdata
        return any(made.cdata == place for made in self._made)


def _has_storage(tensor: Tensor) -> bool:
    strided = tensor.layout is torch.strided
    return strided and type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
