"""The preview of several groups against PyTorch's own schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from inspector.training.schedules import preview, previews

RATES = [0.1, 0.3, 0.001]
STEPS = 30

CASES: list[tuple[dict[str, Any], Callable[[Optimizer], lr_scheduler.LRScheduler]]] = [
    (
        {"name": "step", "step_size": 7, "gamma": 0.5, "unit": "step"},
        lambda o: lr_scheduler.StepLR(o, 7, 0.5),
    ),
    (
        {"name": "cosine", "eta_min": 0.01},
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.01),
    ),
    (
        {"name": "one_cycle", "max_lr": 0.5, "div_factor": 5.0},
        lambda o: lr_scheduler.OneCycleLR(
            o, [0.5, 1.5, 0.005], total_steps=STEPS, div_factor=5.0, cycle_momentum=False
        ),
    ),
]


@pytest.mark.parametrize(("schedule", "scheduler"), CASES, ids=lambda one: str(one)[:20])
def test_each_group_goes_as_pytorchs_scheduler_moves_it(
    schedule: dict[str, Any], scheduler: Callable[[Optimizer], lr_scheduler.LRScheduler]
) -> None:
    plain = SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in RATES])
    moving = scheduler(plain)
    expected = []
    for _ in range(STEPS):
        expected.append([group["lr"] for group in plain.param_groups])
        plain.step()
        moving.step()
    found = previews(schedule, RATES, STEPS, 10)
    assert [list(row) for row in zip(*found, strict=True)] == [pytest.approx(e) for e in expected]


def test_a_single_rate_is_the_first_groups() -> None:
    schedule = {"name": "warmup_cosine"}
    assert previews(schedule, RATES, STEPS, 10)[0] == preview(schedule, RATES[0], STEPS, 10)
