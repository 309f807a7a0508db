"""Scripts that compile more than the model: the optimizer's step, the loss, or the whole step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.convert_frame import output_codes
from torch.nn import functional as F

import inspector
from inspector.events import ProbeFailed
from inspector.store.reader import Run

STEPS = 20
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="torch.compile needs more there"),
    pytest.mark.filterwarnings("ignore"),
]


def train(kind: str, folder: Path | None, every: int) -> tuple[list[Tensor], list[float], Any]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    norms: list[float] = []
    watch = None
    if folder is not None:
        watch = inspector.watch(model, optimizer, run_dir=folder, name="run", every=every)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    def whole(x: Tensor, y: Tensor) -> Tensor:
        loss = loss_of(x, y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    def compiled(function: Any, wanted: str) -> Callable[..., Any]:
        if kind != wanted:
            return function  # type: ignore[no-any-return]
        return torch.compile(function, backend="eager", dynamic=True if kind == "loss" else None)

    step, whole, loss_of = (
        compiled(lambda: optimizer.step(), "optimizer"),
        compiled(whole, "whole"),
        compiled(loss_of, "loss"),
    )
    for number in range(STEPS):
        size = 8 + number % 3  # dynamic shapes
        x, y = torch.randn(size, 6), torch.randint(0, 3, (size,))
        if kind == "whole":
            loss = whole(x, y)
            if watch is not None:
                watch.record(loss=loss)
            continue
        optimizer.zero_grad()
        loss = loss_of(x, y)
        if watch is not None:
            watch.record(loss=loss)
        loss.backward()
        gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack(gradients))))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        step()
    if watch is not None:
        watch.close()
    return [value.clone() for value in model.state_dict().values()], norms, watch


@pytest.mark.parametrize("every", [1, 10_000])
@pytest.mark.parametrize("kind", ["optimizer", "loss", "whole"])
def test_our_hooks_are_not_compiled_with_it(tmp_path: Path, kind: str, every: int) -> None:
    bare, norms, _ = train(kind, None, every)
    watched, _, watch = train(kind, tmp_path, every)
    for mine, other in zip(bare, watched, strict=True):
        assert torch.equal(mine, other)
    package = str(Path(inspector.__file__).parent)
    compiled = {code.co_filename for held in output_codes.seen if (code := held()) is not None}
    assert not [file for file in compiled if file.startswith(package)]
    run = Run(watch.run_path)
    assert not [e for e in run.events() if isinstance(e.event, ProbeFailed)]
    assert list(run.series("loss").steps) == list(range(STEPS))
    found = run.series("total_grad_norm")
    if every == 1:
        assert list(found.steps) == list(range(STEPS))
    if kind != "whole":  # before clipping, since the backward pass was noticed
        np.testing.assert_allclose(found.values, np.array(norms)[found.steps], rtol=1e-4)
