"""Whether gradients stay when ``zero_grad()`` is skipped: scripts may clear them in other ways."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

CLEARED = (
    "zero_grad() of the optimizer is skipped, but the gradients were cleared all the same: the "
    "script does that in another way, such as model.zero_grad(), which cannot be held back."
)


class KeptGradients:
    """Looks at the next two steps after :meth:`begin`; keeps one gradient from one to the other."""

    def __init__(self) -> None:
        self._asked = False
        self._kept: tuple[Tensor, Tensor] | None = None

    def begin(self, asked: bool) -> None:
        """From now on gradients are to stay, or need not any more."""
        self._asked, self._kept = asked, None

    def cleared(self, optimizers: Iterable[Optimizer]) -> bool:
        """Called after each step: True, once, when a gradient has not stayed since the last."""
        if not self._asked:
            return False
        if self._kept is None:
            parameters = (p for o in optimizers for g in o.param_groups for p in g["params"])
            found = ((p, p.grad) for p in parameters if p.grad is not None)
            # Autograd adds to any other gradient by putting a new one in its place.
            self._kept = next((pair for pair in found if _is_plain(pair[1])), None)
            return False
        parameter, gradient = self._kept
        self.begin(False)
        return parameter.grad is not gradient


def _is_plain(gradient: Tensor) -> bool:
    return gradient.layout == torch.strided and not gradient.requires_grad
