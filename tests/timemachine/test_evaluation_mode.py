"""Training in ``eval()`` mode is training: it is measured, and a NaN in it has an origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import inspector
from inspector.events import Notice, Origin
from inspector.store.reader import Run

BAD = 60


class Root(nn.Module):
    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x.abs() * self.factor)


def train(tmp_path: Path, *, forgotten_at: int, every: int, glances: bool) -> Run:
    """``train()`` is forgotten after a validation at this step; NaN data in evaluations alone."""
    torch.manual_seed(0)
    root = Root()
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), root, nn.Linear(8, 3))
    model.train(forgotten_at > 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    options: Any = {"loss_fn": criterion} if glances else {}
    options |= {"run_dir": tmp_path, "name": "run", "every": every}
    with inspector.watch(model, optimizer, **options) as watch:
        for step in range(BAD + 5):
            x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
            if step % 10 == 9:
                model.eval()
                with torch.no_grad():
                    model(torch.full((5, 6), torch.nan))
                model.train(step < forgotten_at)
            root.factor = -1.0 if step == BAD else 1.0
            optimizer.zero_grad()
            loss = criterion(model(x), y) if glances else F.cross_entropy(model(x), y)
            watch.record(loss=loss)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
    return Run(watch.run_path)


@pytest.mark.parametrize("glances", [True, False], ids=["loss_fn", "function"])
@pytest.mark.parametrize("every", [1, 10_000])
@pytest.mark.parametrize("forgotten_at", [0, 15])
def test_the_origin_is_named(tmp_path: Path, forgotten_at: int, every: int, glances: bool) -> None:
    run = train(tmp_path, forgotten_at=forgotten_at, every=every, glances=glances)
    origins = [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]
    step, origin = origins[0]
    assert (step, origin.phase, origin.op, origin.module) == (BAD, "forward", "sqrt", "2")
    assert [e.event for e in run.events() if isinstance(e.event, Notice)] == []


@pytest.mark.parametrize("forgotten_at", [0, 15])
def test_it_is_measured(tmp_path: Path, forgotten_at: int) -> None:
    run = train(tmp_path, forgotten_at=forgotten_at, every=1, glances=False)
    outputs, norms = run.series("activation_mean", "3"), run.series("total_grad_norm")
    missing = {19} if forgotten_at else set()  # of which it is first known that it is training
    assert set(range(BAD)) - set(outputs.steps) == missing
    assert set(range(BAD)) - set(norms.steps) == missing
    assert np.isfinite(outputs.values[: BAD - 1]).all()
    assert (norms.values[: BAD - 1] > 1e-2).all()  # before clipping


def test_evaluation_with_gradients_stays_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    means = []
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=1) as watch:
        for step in range(20):
            model.train()
            optimizer.zero_grad()
            output = model(torch.randn(4, 6))
            means.append(output.mean().item())
            output.square().sum().backward()
            optimizer.step()
            if step % 3 == 2:
                model.eval()
                model(torch.full((4, 6), 100.0))
    found = Run(watch.run_path).series("activation_mean", "2")
    np.testing.assert_allclose(found.values, means, rtol=1e-5)
