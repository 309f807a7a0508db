"""What the model and the loss were given in a step: enough to call them again."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from inspector.capture.activations import tensors_in

OUTPUT = object()
"""Stands for the model's output among the arguments of the loss."""


class Call:
    """One forward pass in training; tensors are kept, not copied.

    Attributes:
        path: what was called: the model, or a part of it where it is never called as a whole.
        args, kwargs: what the model was called with.
        loss_args, loss_kwargs: what the loss module was called with; None if it was not seen.
        loss: the loss module's result, as long as the script keeps it.
        output: the model's (first) output tensor, as long as the script keeps it.
        complete: that result is the loss that the script has recorded.
        gradient: what arrived at the model's output in the backward pass.
        random: the state of the random numbers before the call.
        autocast: device type and dtype, where it was on.
        made: tensors among the arguments that an autograd graph has made.
        nbytes: memory that is kept alive by the tensors.
    """

    # One is made in every step: what it mostly does not have costs nothing here.
    path = ""
    args: tuple[Any, ...] = ()
    loss_args: tuple[Any, ...] | None = None
    loss: weakref.ref[Tensor] | None = None
    output: weakref.ref[Tensor] | None = None
    complete = False
    gradient: Tensor | None = None
    autocast: tuple[str, Any] | None = None
    made: tuple[Tensor, ...] = ()
    nbytes = 0

    def __init__(self, random: list[Tensor] | None = None) -> None:
        self.random = random or []
        self.versions: list[tuple[Tensor, int]] = []
        self.kwargs: dict[str, Any] = {}
        self.loss_kwargs: dict[str, Any] = {}

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keeps what the model was called with, without any autograd graph."""
        if not kwargs and len(args) == 1 and type(args[0]) is Tensor:
            tensor = args[0]
            if not tensor.requires_grad:
                try:
                    self.versions, self.nbytes = [(tensor, tensor._version)], tensor.nbytes
                except RuntimeError:  # made in inference mode, or sparse
                    self.versions = []
                else:
                    self.args = args
                    return
        self.args = tuple([self._kept(value) for value in args])
        if kwargs:
            self.kwargs = {key: self._kept(value) for key, value in kwargs.items()}

    def keep_loss(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor, *, strict: bool
    ) -> None:
        """Keeps what the loss module was called with; :data:`OUTPUT` is the model's output.

        Arguments that come from the model in another way cannot be had again: then nothing is
        kept. Unless ``strict``, the one with a gradient is taken for the output.
        """
        output = None if self.output is None else self.output()
        kept = []
        for value in args:
            if not strict and isinstance(value, Tensor) and value.requires_grad:
                output, strict = value, True
            if value is output:
                kept.append(OUTPUT)
            elif isinstance(value, Tensor) and value.requires_grad:
                return
            else:
                kept.append(self._kept(value))
        named = {}
        for key, value in kwargs.items():
            if isinstance(value, Tensor) and value.requires_grad and value is not output:
                return
            named[key] = OUTPUT if value is output else self._kept(value)
        self.loss_args, self.loss_kwargs = tuple(kept), named
        self.loss = weakref.ref(result)

    @property
    def intact(self) -> bool:
        """Whether the tensors still hold what they held when the model was called."""
        return all(tensor._version == version for tensor, version in self.versions)

    @property
    def batch(self) -> int:
        """Samples in the batch: the first size of the first input; 0 if there is none."""
        first = next(tensors_in((self.args, self.kwargs)), None)
        return int(first.shape[0]) if first is not None and first.dim() else 0

    def _kept(self, value: Any) -> Any:
        """The same value with detached tensors, whose versions are noted."""
        if isinstance(value, Tensor):
            kept = value.detach() if value.requires_grad else value
            self._note(kept)
            if value.grad_fn is not None:
                self.made += (kept,)
            return kept
        if type(value) in (tuple, list):
            return type(value)(self._kept(part) for part in value)
        if type(value) is dict:
            return {key: self._kept(part) for key, part in value.items()}
        for tensor in tensors_in(value):
            self._note(tensor)
        return value

    def _note(self, tensor: Tensor) -> None:
        if not tensor.is_inference():
            self.versions.append((tensor, tensor._version))
        self.nbytes += tensor.nbytes if tensor.layout is torch.strided else 0
