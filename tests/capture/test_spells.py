"""What is bad is told once, however many other steps lie between its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from listening import observe
from torch import Tensor, nn


class Masked(nn.Module):
    """A NaN that is not used: loss and gradients are finite."""

    bad = False

    def forward(self, x: Tensor) -> Tensor:
        return x.clone().index_fill(0, torch.tensor([0]), torch.nan) if self.bad else x


class Turns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.masked, self.second = nn.Linear(4, 1), Masked(), nn.Linear(4, 1)

    def forward(self, x: Tensor, turn: int) -> Tensor:
        if turn % 3:
            return self.second(x)  # type: ignore[no-any-return]
        return self.first(self.masked(x)[1:])  # type: ignore[no-any-return]


def test_steps_that_go_another_way_do_not_end_a_spell() -> None:
    torch.manual_seed(0)
    model = Turns()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    case: Any = SimpleNamespace(model=model, optimizers=[optimizer])
    observer, listening = observe(case)
    for step in range(24):
        model.masked.bad = 6 <= step < 13 or step >= 18
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4), step).square().mean()
        observer.record({"loss": loss})
        loss.backward()
        optimizer.step()
    observer.close()
    told = [(row.step, row.onset.module) for row in listening.rows if row.onset]
    assert told == [(6, "masked"), (18, "masked")]  # well again in step 15
