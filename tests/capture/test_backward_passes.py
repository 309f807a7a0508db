"""Passes that leave gradients in the parameters are told from others, and from failed ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from inspector.capture.backward_passes import BackwardPasses


class Noticed:
    """Passes through some losses, each noticed at its first gradient as by the observer."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.passes = BackwardPasses(parameters)
        self.parameters = parameters
        self.found: list[tuple[bool, bool]] = []

    def backward(self, loss: Tensor) -> None:
        loss.register_hook(self._begin)  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]

    def _begin(self, _gradient: Tensor) -> None:
        self.passes.task = torch._C._current_graph_task_id()
        self.passes.begin(self._end)

    def _end(self) -> None:
        self.passes.task = None
        self.found.append(self.passes.end(self.parameters))


def test_what_a_pass_has_left() -> None:
    weight = nn.Parameter(torch.ones(2))
    noticed, other = Noticed([weight]), torch.ones(2, requires_grad=True)
    noticed.backward((weight * 2).sum())
    noticed.backward((weight * 2).sum())
    noticed.backward((other * 2).sum())
    weight.grad = None
    noticed.backward((weight * 2).sum())
    assert noticed.found == [(True, True), (True, False), (False, False), (True, True)]


def test_a_pass_that_raises_does_not_run_for_ever() -> None:
    weight = nn.Parameter(torch.ones(2))
    noticed = Noticed([weight])
    middle = weight * 2

    def fail(_gradient: Tensor) -> None:
        raise ValueError("not today")

    middle.register_hook(fail)  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="not today"):
        noticed.backward(middle.sum())
    assert noticed.passes.task is not None
    assert noticed.passes.have_failed()
    assert noticed.passes.task is None and not noticed.passes.have_failed()


def test_few_of_many_parameters_are_looked_at() -> None:
    many = [nn.Parameter(torch.ones(1)) for _ in range(100)]
    passes = BackwardPasses(many)
    assert not passes.few
    for parameter in many[10:]:
        parameter.grad = torch.ones(1)
    passes.refer(many)
    assert passes.few and passes.references
    assert all(parameter.grad is not None for parameter in passes.references)
