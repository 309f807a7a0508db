"""How far the optimizer moved each parameter: ‖Δw‖ / ‖w‖, and the weight norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inspector.capture.kernel import Sizes, fits, load
from inspector.capture.reductions import measurable, norms, spread
from inspector.capture.transfer import Scalar


@dataclass(slots=True)
class UpdateStatistics:
    """One list per statistic, one entry per parameter; ``ABSENT`` where it cannot be had.

    Attributes:
        before: L2 norm of the parameter before the step.
        change: L2 norm of its change in the step.
        after: L2 norm after the step.
    """

    before: list[Scalar] = field(default_factory=list)
    change: list[Scalar] = field(default_factory=list)
    after: list[Scalar] = field(default_factory=list)


class UpdateProbe:
    """Keeps a copy of the parameters during ``optimizer.step()``; the memory is reused."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._size = len(parameters)
        self._positions = [i for i, p in enumerate(parameters) if measurable(p)]
        self._parameters = [parameters[i] for i in self._positions]
        self._copies: list[Tensor] = []
        self._kernel = load() if all(fits(p) for p in self._parameters) else None
        self._sizes = Sizes(self._parameters)
        self._block: Tensor | None = None
        self._before: list[Scalar] | None = None

    def before_step(self) -> None:
        if self._kernel is not None and all(fits(p) for p in self._parameters):
            if self._block is None:
                self._block = torch.empty(self._sizes.total)
            self._before = list(self._kernel.keep(self._parameters, self._sizes, self._block))
            return
        self._kernel = None
        with torch.no_grad():
            if not self._copies:
                self._copies = [_same_layout(p) for p in self._parameters]
            if self._copies:
                torch._foreach_copy_(self._copies, self._parameters)
            self._before = norms(self._copies)

    def after_step(self) -> UpdateStatistics | None:
        """None when :meth:`before_step` was not called for this step."""
        before, self._before = self._before, None
        if before is None:
            return None
        if self._kernel is not None and self._block is not None:
            moved, now = self._kernel.compare(self._parameters, self._sizes, self._block)
            return self._spread(before, list(moved), list(now))
        with torch.no_grad():
            if self._copies:
                torch._foreach_sub_(self._copies, self._parameters)
            change = norms(self._copies)
            after = norms([parameter.detach() for parameter in self._parameters])
        return self._spread(before, change, after)

    def _spread(
        self, before: list[Scalar], change: list[Scalar], after: list[Scalar]
    ) -> UpdateStatistics:
        return UpdateStatistics(
            before=spread(before, self._positions, self._size),
            change=spread(change, self._positions, self._size),
            after=spread(after, self._positions, self._size),
        )


def _same_layout(parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter, requires_grad=False)
