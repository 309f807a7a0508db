"""Remedies are applied and judged; going back restores a kept state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from inspector.events import (
    RemedyVerdict,
)
from tests.faults.loop import Loop


class DeepSigmoid(nn.Sequential):
    def __init__(self) -> None:
        parts: list[nn.Module] = [nn.Linear(6, 32), nn.Sigmoid()]
        for _ in range(8):
            parts += [nn.Linear(32, 32), nn.Sigmoid()]
        super().__init__(*parts, nn.Linear(32, 3))


def test_vanishing_gradients_are_cured_by_new_weights_and_the_verdict_says_so(
    tmp_path: Path,
) -> None:
    loop = Loop(tmp_path, DeepSigmoid())
    loop.step(30)
    loop.tell(
        "remedy", action="reinitialize", method="xavier", code="vanishing_gradient",
        quantity="grad_norm", subject="0.weight", threshold=1e-3, side="below",
        text="New weights (Xavier)",
    )  # fmt: skip
    loop.step(60)
    with loop.close() as run:
        (verdict,) = [s.event for s in run.events() if isinstance(s.event, RemedyVerdict)]
    assert verdict.verdict == "recovered", verdict
    assert verdict.before is not None and verdict.after is not None
    assert verdict.before < 1e-4 < 1e-2 < verdict.after


def test_a_control_as_a_remedy_is_judged_fifty_steps_later(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.watch._recorder.observer.zero_grad = False
    loop.step(40)
    loop.tell("remedy", action="set", control="zero_grad", value=True, code="missing_zero_grad",
              quantity="backward_passes", threshold=1.5, text="Turn zero_grad on")  # fmt: skip
    loop.step(49)
    loop.step(5)
    with loop.close() as run:
        verdicts = [s for s in run.events() if isinstance(s.event, RemedyVerdict)]
        (stored,) = verdicts
        assert stored.step - stored.event.applied_at == 50  # type: ignore[attr-defined]
        assert stored.event.verdict == "recovered"  # type: ignore[attr-defined]


def test_unfreezing_brings_parameters_into_the_optimizer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    loop = Loop(tmp_path, model)
    loop.optimizer.param_groups[0]["params"] = list(model[2].parameters())
    loop.step(2)
    before = model[0].weight.detach().clone()
    loop.tell("remedy", action="unfreeze", module="0")
    loop.step(3)
    assert not torch.equal(model[0].weight, before)
    loop.close().close()


def test_going_back_restores_a_kept_state_and_lowers_the_rate(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.step(25)
    loop.tell("rewind", lr_factor=0.1)
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    with loop.close() as run:
        kinds = [stored.event.kind for stored in run.events()]
    assert "rewound" in kinds
