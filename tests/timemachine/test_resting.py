"""Steps too short for the armed machine: a glance is enough to say where a NaN comes from."""

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
from inspector.capture import plan as capture
from inspector.diagnosis import diagnose
from inspector.events import NonFinite, Origin

pytestmark = pytest.mark.skipif(native.load() is None, reason="no C compiler here")
BAD = 173


class Root(nn.Module):
    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x.abs() * self.factor)


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step counts as a short one, soon."""
    monkeypatch.setattr(capture, "_SHORT", 10.0)
    monkeypatch.setattr(capture, "_HURRIED", 0.0)
    monkeypatch.setattr(capture, "_SETTLED", 20)


def train(tmp_path: Path | None, kind: str) -> Any:
    """Rests at the bad step; gives the model, and whether the machine was at rest."""
    torch.manual_seed(0)
    root = Root()
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), root, nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()
    watch = None
    if tmp_path is not None:
        watch = inspector.watch(model, optimizer, run_dir=tmp_path, name="run", loss_fn=loss_fn)
    rested = False
    for step in range(BAD + 17):
        x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
        root.factor = 1.0
        if step == BAD:
            rested = watch is not None and watch.timemachine.asleep
            if kind == "data":
                x[5, 2] = torch.nan
            root.factor = {"forward": -1.0, "backward": 0.0, "half": 1e12}.get(kind, 1.0)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=kind == "half"):
            loss = loss_fn(model(x), y)
        if watch is not None:
            watch.record(loss=loss)
        loss.backward()
        optimizer.step()
    if watch is not None:
        watch.close()
    return model, rested


@pytest.mark.parametrize(
    ("kind", "phase", "op", "module"),
    [
        ("data", "data", "the batch's input", None),
        ("forward", "forward", "sqrt", "2"),
        ("backward", "backward", "SqrtBackward0", "2"),
        ("half", "forward", "mul", "2"),  # too large for float16 alone
    ],
)
def test_the_origin_is_named_in_its_step(
    tmp_path: Path, kind: str, phase: str, op: str, module: str | None
) -> None:
    model, rested = train(tmp_path, kind)
    assert rested
    with inspector.open_run(tmp_path / "run") as run:
        origins = [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]
        told = [e.step for e in run.events() if isinstance(e.event, NonFinite)]
        (finding,) = [f for f in diagnose(run) if f.code == "nonfinite"]
    step, origin = origins[0]
    assert (step, origin.phase, origin.op) == (BAD, phase, op)
    assert told[0] == BAD
    assert finding.step == BAD
    if module is None:
        assert origin.samples == [5]
        assert "the batch's input (sample 5)" in finding.title
    else:
        assert origin.module == finding.module == module
        assert "torch.sqrt(x.abs() * self.factor)" in origin.code
    bare, _ = train(None, kind)  # the policy is to go on: nothing is held, nothing changed
    for name, value in bare.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), model.state_dict()[name].nan_to_num(7.0)), name


def test_what_is_glanced_at_keeps_no_graph_alive(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_fn = nn.MSELoss()
    watch = inspector.watch(model, optimizer, run_dir=tmp_path, name="run", loss_fn=loss_fn)
    for step in range(120):
        optimizer.zero_grad()
        output = model(torch.randn(3, 4))
        loss = loss_fn(output, torch.zeros(3, 2))
        watch.record(loss=loss)
        loss.backward()
        optimizer.step()
        if step > 100:
            kept = weakref.ref(output)
            del output, loss
            assert kept() is None
    assert watch.timemachine.asleep
    batch = torch.randn(3, 4)
    held = weakref.ref(batch)
    loss_fn(model(batch), torch.zeros(3, 2)).backward()
    del batch
    watch.close()
    gc.collect()
    assert held() is None


def test_calls_that_cannot_be_glanced_at_are_left_alone(tmp_path: Path) -> None:
    """Keyword arguments: nothing can be run again, and the run says so."""

    class Named(nn.Linear):
        def forward(self, *, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    model = Named(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_fn = nn.MSELoss()
    watch = inspector.watch(model, optimizer, run_dir=tmp_path, name="run", loss_fn=loss_fn)
    for step in range(BAD + 4):
        x = torch.randn(3, 4)
        if step == BAD:
            assert watch.timemachine.asleep
            x[0, 0] = torch.inf
        optimizer.zero_grad()
        loss = loss_fn(model(x=x), torch.zeros(3, 2))
        watch.record(loss=loss)
        loss.backward()
        optimizer.step()
    watch.close()
    with inspector.open_run(tmp_path / "run") as run:
        told = [e.step for e in run.events() if isinstance(e.event, NonFinite)]
    assert told[0] == BAD


def test_with_two_optimizers_the_machine_does_not_rest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    root = Root()
    model = nn.Sequential(nn.Linear(6, 8), root, nn.Linear(8, 3))
    steppers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in model[::2]]
    watch = inspector.watch(model, steppers, run_dir=tmp_path, name="run")
    for step in range(BAD + 4):
        root.factor = 0.0 if step == BAD else 1.0
        for stepper in steppers:
            stepper.zero_grad()
        loss = model(torch.randn(12, 6)).square().mean()
        watch.record(loss=loss)
        loss.backward()
        for stepper in reversed(steppers):
            stepper.step()
    watch.close()
    with inspector.open_run(tmp_path / "run") as run:
        origins = [(e.step, e.event.op) for e in run.events() if isinstance(e.event, Origin)]
    assert origins[0] == (BAD, "SqrtBackward0")


class Flat(nn.Module):
    """Its first operation saves a view of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Root()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), self.root, nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["forward", "data", "loss", "recorded late"])
def test_a_batch_that_nobody_kept_is_found_in_the_graph_of_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """No loss_fn, and steps in which even a glance at the batch would cost too much."""
    monkeypatch.setattr(capture, "_HURRIED", 10.0)

    chosen = 0

    def train(watch: Any) -> Any:
        nonlocal chosen
        for step in range(BAD + 100):
            x, y = torch.randn(12, 2, 3), torch.randint(0, 3, (12,))
            if watch is not None and step > BAD and not chosen and watch.timemachine.asleep:
                assert not watch.timemachine._glancing
                chosen = step
            bad = chosen > 0 and step == chosen
            if bad and kind == "data":
                x[5, 1, 2] = torch.nan
            model.root.factor = -1.0 if bad and kind in ("forward", "recorded late") else 1.0
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if bad and kind == "loss":
                loss = loss * torch.log(loss - loss.detach() - 1.0)
            if watch is not None and kind != "recorded late":
                watch.record(loss=loss)
            loss.backward()
            if watch is not None and kind == "recorded late":
                watch.record(loss=loss)
            optimizer.step()
        return model.state_dict(), torch.get_rng_state()

    ends = []
    for watched in (True, False):
        torch.manual_seed(0)
        model = Flat()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        if watched:
            with inspector.watch(model, optimizer, run_dir=tmp_path, name="run") as watch:
                ends.append(train(watch))
        else:
            ends.append(train(None))
    (weights, random), (bare, bare_random) = ends
    assert torch.equal(random, bare_random)
    for name, value in bare.items():
        assert torch.equal(value.nan_to_num(7.0), weights[name].nan_to_num(7.0)), name
    with inspector.open_run(tmp_path / "run") as run:
        origins = [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]
        told = [e.step for e in run.events() if isinstance(e.event, NonFinite)]
    assert told[0] == chosen
    step, origin = origins[0]
    if kind == "data":
        assert (step, origin.phase, origin.samples) == (chosen, "data", [5])
    elif kind == "forward":
        assert (step, origin.phase, origin.op) == (chosen, "forward", "sqrt")
        assert origin.module == "root"
        assert "torch.sqrt(x.abs() * self.factor)" in origin.code
    elif kind == "loss":
        assert (step, origin.phase, origin.op, origin.in_loss) == (chosen, "forward", "log", True)
        assert origin.code == "loss = loss * torch.log(loss - loss.detach() - 1.0)"
    else:  # only its consequence is seen
        assert (step, origin.phase) == (chosen + 1, "parameters")
