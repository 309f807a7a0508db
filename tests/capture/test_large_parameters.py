"""The numbers of large parameters are exact whoever writes to them, and by whatever way."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from listening import observe, values
from torch import nn

STEPS = 6


def by_data(model: nn.Sequential) -> None:
    model[0].weight.data.mul_(1.01)


def one_element_by_data(model: nn.Sequential) -> None:
    model[0].weight.data[701, 333] += 2.0
    assert model[2].weight.grad is not None
    model[2].weight.grad.data[77, 1111] += 3.0


def in_place(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[2].weight.clamp_(-0.01, 0.01)


def gradient_by_data(model: nn.Sequential) -> None:
    assert model[2].weight.grad is not None
    model[2].weight.grad.data.mul_(0.5)


def replaced(model: nn.Sequential) -> None:
    model[0].weight.data = model[0].weight.data.clone() * 0.9


def nobody(model: nn.Sequential) -> None: ...


EDITS = [nobody, by_data, one_element_by_data, in_place, gradient_by_data, replaced]


@pytest.mark.parametrize("edit", EDITS)
def test_numbers_are_exact_whoever_writes(edit: Callable[[nn.Sequential], None]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 1500), nn.ReLU(), nn.Linear(1500, 300), nn.Linear(300, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    observer, listening = observe(SimpleNamespace(model=model, optimizers=[optimizer]))  # type: ignore[arg-type]
    for step in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(16, 512)).square().mean().backward()
        if step > 2:
            edit(model)
        before = [p.detach().double().clone() for p in model.parameters()]
        received = [float(p.grad.double().norm()) for p in model.parameters()]  # type: ignore[union-attr]
        optimizer.step()
        observer.record({"loss": 0.0})
        found = values(listening.rows[-1].parameters)
        for (name, parameter), old, norm in zip(
            model.named_parameters(), before, received, strict=True
        ):
            new = parameter.detach().double()
            right = {
                "update_ratio": float((new - old).norm() / old.norm()),
                "weight_norm": float(new.norm()),
                "grad_norm_clipped": norm,
            }
            for quantity, value in right.items():
                assert math.isclose(found[quantity, name], value, rel_tol=1e-5), (quantity, name)
    observer.close()
