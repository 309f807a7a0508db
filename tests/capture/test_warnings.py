"""Watching says nothing on the user's terminal that the training did not say."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import inspector


class Scaled(nn.Module):
    """Its output is a product with a parameter of one element, which the loss's graph shows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return (self.linear(inputs) * self.scale).mean()


@pytest.mark.usefixtures("one_thread")
def test_a_learned_factor_before_the_loss_warns_of_nothing(tmp_path: Path) -> None:
    model = Scaled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.set_warn_always(True)
    try:
        with (
            warnings.catch_warnings(record=True) as said,
            inspector.watch(model, optimizer, run_dir=tmp_path) as watch,
        ):
            warnings.simplefilter("always")
            for _ in range(4):
                optimizer.zero_grad()
                loss = model(torch.randn(8, 4))
                watch.record(loss=loss)
                loss.backward()
                optimizer.step()
    finally:
        torch.set_warn_always(False)
    assert [str(warning.message) for warning in said] == []
