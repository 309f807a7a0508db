"""What a step is undone with: buffers as they were, gradients that are held back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer


class Buffers:
    """A model's buffers, and what they held before the forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.find(model)

    def find(self, model: nn.Module) -> None:
        """Looks up which there are; they hold what they do now."""
        named = {name: buffer for name, buffer in model.named_buffers() if not is_lazy(buffer)}
        self._names = list(named)
        self._now = [buffer.detach() for buffer in named.values()]
        self._copies = [buffer.clone() for buffer in self._now]

    def __bool__(self) -> bool:
        return bool(self._now)

    def keep(self) -> None:
        """The forward pass begins."""
        if self._now:
            torch._foreach_copy_(self._copies, self._now)

    def undo(self) -> None:
        """As if the forward pass had not been."""
        if self._now:
            torch._foreach_copy_(self._now, self._copies)

    def before(self) -> dict[str, Tensor]:
        """By name, what they held before the forward pass; not copied."""
        return dict(zip(self._names, self._copies, strict=True))

    def forget(self) -> None:
        self._names, self._now, self._copies = [], [], []


class HeldGradients:
    """Gradients taken from an optimizer, whose step then changes nothing."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def take(self, optimizer: Optimizer) -> None:
        """Right before its step."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._pairs.append((parameter, parameter.grad))
                    parameter.grad = None

    def give_back(self) -> None:
        """Right after it."""
        for parameter, gradient in self._pairs:
            parameter.grad = gradient
        self._pairs = []
