"""What the model and the loss were given in a step: enough to call them again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from inspector.capture.activations import tensors_in

OUTPUT = object()
"""Stands for the model's output among the arguments of the loss."""


@dataclass(eq=False, slots=True)
class Call:
    """One forward pass of the model in training; tensors are kept, not copied.

    Attributes:
        args, kwargs: what the model was called with.
        loss_args, loss_kwargs: what the loss module was called with; None if it was not seen.
        loss: the loss module's result, as long as the script keeps it.
        gradient: what arrived at the model's output in the backward pass.
        random: the state of the random numbers before the call.
        autocast: device type and dtype, where it was on.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    loss_args: tuple[Any, ...] | None = None
    loss_kwargs: dict[str, Any] = field(default_factory=dict)
    loss: weakref.ref[Tensor] | None = None
    output: weakref.ref[Any] | None = None
    gradient: Tensor | None = None
    random: list[Tensor] = field(default_factory=list)
    autocast: tuple[str, Any] | None = None
    complete: bool = False
    _versions: list[tuple[Tensor, int]] = field(default_factory=list)

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keeps what the model was called with, without any autograd graph."""
        self.args, self.kwargs = _remember(args, self._versions), _remember(kwargs, self._versions)

    def keep_loss(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        """Keeps what the loss module was called with; :data:`OUTPUT` is the model's output."""
        self.loss_args = _remember(args, self._versions)
        self.loss_kwargs = _remember(kwargs, self._versions)
        self.loss = weakref.ref(result)

    @property
    def intact(self) -> bool:
        """Whether the tensors still hold what they held when the model was called."""
        return all(tensor._version == version for tensor, version in self._versions)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that is kept alive."""
        yield from tensors_in((self.args, self.kwargs, self.loss_args or (), self.loss_kwargs))
        if self.gradient is not None:
            yield self.gradient

    @property
    def batch(self) -> int:
        """Samples in the batch: the first size of the first input; 0 if there is none."""
        first = next(tensors_in((self.args, self.kwargs)), None)
        return int(first.shape[0]) if first is not None and first.dim() else 0


def _remember(value: Any, versions: list[tuple[Tensor, int]]) -> Any:
    """The same value with detached tensors, whose versions are noted."""
    if isinstance(value, Tensor):
        kept = value.detach() if value.requires_grad else value
        if not value.is_inference():
            versions.append((kept, kept._version))
        return kept
    if type(value) in (tuple, list):
        return type(value)(_remember(part, versions) for part in value)
    if type(value) is dict:
        return {key: _remember(part, versions) for key, part in value.items()}
    versions += [(tensor, tensor._version) for tensor in tensors_in(value)]
    return value
