"""Ordinary steps are written down in C: what is kept of them is what Python would have kept."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.capture import native
from inspector.commands import Controls
from inspector.events import Origin
from inspector.timemachine.machine import TimeMachine

needs_extension = pytest.mark.skipif(native.load() is None, reason="no C compiler here")


class Quiet:
    """A listener to whom nothing happens."""

    step = 0

    def nonfinite_policy(self) -> str:
        return "skip"


class Trap(nn.Module):
    """NaN in the gradient where a sample is exactly zero: an infinite slope times nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x * x * self.gain) + torch.rand_like(x)


def with_and_without(monkeypatch: pytest.MonkeyPatch, extension: bool) -> None:
    if not extension:
        monkeypatch.setattr(native, "load", lambda: None)


@pytest.mark.parametrize("extension", [pytest.param(True, marks=needs_extension), False])
@pytest.mark.parametrize("loss", ["module", "function", "after the step", "two micro-batches"])
def test_a_nan_after_many_ordinary_steps_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, extension: bool
) -> None:
    with_and_without(monkeypatch, extension)
    torch.manual_seed(0)
    model = nn.Sequential(Trap(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss()
    measure: Any = nn.functional.cross_entropy if loss == "function" else criterion
    controls = Controls(on_nonfinite="skip")
    with inspector.watch(
        model, optimizer, run_dir=tmp_path, name="run", loss_fn=criterion, controls=controls
    ) as watch:
        for step in range(120):
            optimizer.zero_grad()
            for _ in range(2 if loss == "two micro-batches" else 1):
                x = torch.randn(8, 6)
                if step == 100:
                    x[5] = 0
                value = measure(model(x), torch.arange(8) % 3)
                value.backward()
                if loss != "after the step":
                    watch.record(loss=value)
            optimizer.step()
            if loss == "after the step":
                watch.record(loss=value)
    with inspector.open_run(tmp_path / "run") as run:
        found = [(s.step, s.event) for s in run.events() if isinstance(s.event, Origin)]
    assert [step for step, _ in found] == [100]
    origin = found[0][1]
    assert (origin.phase, origin.op, list(origin.samples)) == ("backward", "SqrtBackward0", [5])
    assert origin.held


@pytest.mark.parametrize("extension", [pytest.param(True, marks=needs_extension), False])
@pytest.mark.parametrize("known", [True, False])
def test_the_last_batches_are_kept_and_no_others(
    monkeypatch: pytest.MonkeyPatch, extension: bool, known: bool
) -> None:
    with_and_without(monkeypatch, extension)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    listener = Quiet()
    machine = TimeMachine(model, [optimizer], listener, loss_fn=criterion if known else None)  # type: ignore[arg-type]
    batches, states, freed = [], [], []
    for step in range(100):
        x, y = torch.full((3, 4), step / 100), torch.tensor([0, 1, step % 2])
        batches.append((x.clone(), y.clone()))
        states.append(torch.get_rng_state())
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        machine.on_loss(loss)
        loss.backward()
        optimizer.step()
        freed.append(weakref.ref(x))
        listener.step += 1
        del x, y, loss
    machine.rest(True)  # hands everything to Python
    gc.collect()
    kept = dict(machine.history.calls)
    assert set(range(40, 99)) <= set(kept)
    for step in range(40, 99):
        (call,) = kept[step]
        assert torch.equal(call.args[0], batches[step][0]) and call.intact and call.batch == 3
        assert torch.equal(call.random[0], states[step])
        if known:
            assert call.loss_args is not None and torch.equal(call.loss_args[1], batches[step][1])
        assert call.gradient is None
    assert all(reference() is None for reference in freed[:30])
    machine.close()
    del kept, call
    gc.collect()
    assert all(reference() is None for reference in freed)
