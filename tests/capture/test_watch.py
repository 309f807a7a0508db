"""watch() end to end: a plain loop, the run directory, commands from outside."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from inspector.commands import Command, Controls
from inspector.errors import InspectorError
from inspector.events import (
    CommandApplied,
    CommandRefused,
    Event,
    NonFinite,
    Paused,
    ProbeFailed,
    RunFailed,
    RunFinished,
)
from inspector.store.control import ControlWriter
from inspector.watching import Watch


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))


class Loop:
    """A plain training loop in a thread, which a test steers through the control file."""

    def __init__(self, path: Path, *, optimizer: Any = None, **options: Any) -> None:
        self.model = mlp()
        build = optimizer or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5))
        self.optimizer = build(self.model.parameters())
        self.options = {"run_dir": path, "name": "loop", **options}
        self.scheduler: Any = None
        self.watch: Watch | None = None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[tuple[float, int]] = []

    def _run(self) -> None:
        torch.manual_seed(1)
        with inspector.watch(self.model, self.optimizer, **self.options) as watch:
            self.watch = watch
            self.ready.set()
            while not watch.should_stop:
                self.optimizer.zero_grad()
                loss = self.model(torch.randn(8, 6)).square().mean()
                watch.record(loss=loss)
                loss.backward()
                self.optimizer.step()
                if self.scheduler is not None:
                    self.scheduler.step()
                self.seen.append((self.optimizer.param_groups[0]["lr"], watch.step))
                time.sleep(0.001)

    def __enter__(self) -> Loop:
        self.thread.start()
        assert self.ready.wait(30)
        assert self.watch is not None
        self.control = ControlWriter(self.watch.run_path)
        self.run = inspector.open_run(self.watch.run_path)
        return self

    def __exit__(self, *_: object) -> None:
        self.control.send(Command(name="stop"))
        self.thread.join(30)
        self.control.close()
        self.run.close()
        assert not self.thread.is_alive()

    def send(self, name: Any, control: str = "", value: Any = None) -> Event:
        """Sends a command and waits for its answer."""
        identity = self.control.send(Command(name=name, control=control, value=value))
        return self.wait(
            lambda e: isinstance(e, (CommandApplied, CommandRefused)) and e.command_id == identity
        )

    def wait(self, wanted: Callable[[Event], bool]) -> Event:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for stored in self.run.events():
                if wanted(stored.event):
                    return stored.event
            time.sleep(0.02)
        raise AssertionError("the event did not come")

    def steps_on(self, steps: int) -> None:
        """Waits until training is so many steps further."""
        assert self.watch is not None
        target = self.watch.step + steps
        deadline = time.monotonic() + 30
        while self.watch.step < target and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.watch.step >= target


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with Loop(tmp_path, every=1) as running:
        yield running


def train(
    watch: Watch, model: nn.Module, optimizer: Any, steps: int, *, late: bool = False
) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6)).square().mean()
        if not late:
            watch.record(loss=loss)
        loss.backward()
        optimizer.step()
        if late:
            watch.record(loss=loss)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("every", [0, 1, 7])
def test_a_run_holds_the_loss_of_each_step(tmp_path: Path, late: bool, every: int) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="a", every=every) as watch:
        losses = train(watch, model, optimizer, 30, late=late)
    with inspector.open_run(tmp_path / "a") as run:
        series = run.series("loss")
        assert series.steps.tolist() == list(range(30))
        assert series.values.tolist() == pytest.approx(losses)
        names = {key.subject for key in list(run.keys()) if key.quantity == "grad_norm"}
        assert names == {name for name, _ in model.named_parameters()}
        if every:
            steps = run.series("grad_norm", "0.weight").steps.tolist()
            assert steps == list(range(0, 30, every))
        assert [m["path"] for m in run.document("modules")["modules"]] == ["0", "1", "2", ""]
        assert run.status == "finished"
        assert isinstance(run.events()[-1].event, RunFinished)


def test_numbers_of_a_loop_that_records_seldom(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="a") as watch:
        for step in range(20):
            loss = model(torch.randn(8, 6)).square().mean()
            if step % 5 == 0:
                watch.record(loss=loss, samples=8, epoch=step / 10)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        watch.validation(val_loss=torch.tensor(0.5))
    with inspector.open_run(tmp_path / "a") as run:
        assert run.series("loss").steps.tolist() == [0, 5, 10, 15]
        assert run.series("lr").steps.tolist() == list(range(20))
        assert run.series("val_loss").values.tolist() == [0.5]


def test_learning_rate_is_changed_from_outside(loop: Loop) -> None:
    answer = loop.send("set", "lr", 0.03)
    assert isinstance(answer, CommandApplied) and answer.effective == 0.03
    loop.steps_on(2)
    assert loop.seen[-1][0] == 0.03
    loop.send("set", "lr", None)
    loop.steps_on(2)
    assert loop.seen[-1][0] == 0.1


def test_a_scheduler_does_not_undo_the_learning_rate(tmp_path: Path) -> None:
    running = Loop(tmp_path)
    running.scheduler = torch.optim.lr_scheduler.LambdaLR(running.optimizer, lambda _: 1.0)
    with running:
        answer = running.send("set", "lr", 0.03)
        assert isinstance(answer, CommandApplied) and "LambdaLR" in answer.note
        running.steps_on(3)
        assert running.seen[-1][0] == pytest.approx(0.03)


def test_momentum_and_weight_decay(loop: Loop) -> None:
    loop.send("set", "momentum", 0.9)
    loop.send("set", "weight_decay", 0.01)
    group = loop.optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.01)


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.Adam])
def test_momentum_can_be_raised_from_nothing(tmp_path: Path, optimizer: Any) -> None:
    with Loop(tmp_path, optimizer=optimizer) as running:
        answer = running.send("set", "momentum", 0.8)
        assert isinstance(answer, CommandApplied) and answer.effective == 0.8
        running.steps_on(5)


def test_what_an_optimizer_lacks_is_refused(tmp_path: Path) -> None:
    with Loop(tmp_path, optimizer=torch.optim.Adagrad) as running:
        answer = running.send("set", "momentum", 0.8)
        assert isinstance(answer, CommandRefused)
        assert answer.reason == "Adagrad has no momentum."


def test_clipping_by_norm_and_by_value(loop: Loop) -> None:
    loop.send("set", "clip_threshold", 1e-3)
    loop.send("set", "clip", "norm")
    loop.steps_on(3)
    loop.send("set", "clip", "value")
    loop.steps_on(3)
    loop.send("pause")
    loop.watch._recorder.writer.flush()  # type: ignore[union-attr]
    unclipped = dict(zip(*_series(loop, "total_grad_norm"), strict=True))
    clipped = dict(zip(*_series(loop, "clipped_grad_norm"), strict=True))
    marks = dict(zip(*_series(loop, "clipped"), strict=True))
    by_norm = [s for s, v in clipped.items() if v == pytest.approx(1e-3, rel=1e-2)]
    assert len(by_norm) >= 2
    assert all(marks[s] == 1 and unclipped[s] > 1e-3 for s in by_norm)
    loop.send("resume")


def _series(loop: Loop, quantity: str) -> tuple[list[int], list[float]]:
    series = loop.run.series(quantity, max_points=100_000)
    return series.steps.tolist(), series.values.tolist()


def test_zero_grad_can_be_switched_off(loop: Loop) -> None:
    loop.send("set", "zero_grad", False)
    loop.steps_on(5)
    loop.send("set", "zero_grad", True)
    loop.steps_on(2)
    loop.send("pause")
    loop.watch._recorder.writer.flush()  # type: ignore[union-attr]
    _, passes = _series(loop, "backward_passes")
    assert max(passes) >= 5
    assert passes[-1] == 1
    loop.send("resume")


def test_pause_single_steps_and_resume(loop: Loop) -> None:
    assert loop.watch is not None
    loop.send("pause")
    at = loop.watch.step
    loop.send("run_steps", value=3)
    loop.wait(lambda e: isinstance(e, Paused) and e.reason == "steps_done")
    assert loop.watch.step == at + 3
    deadline = time.monotonic() + 30
    while loop.run.status != "paused" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert loop.run.status == "paused"
    loop.send("resume")
    loop.steps_on(3)


def test_slow_motion(loop: Loop) -> None:
    loop.send("set", "max_steps_per_s", 20.0)
    assert loop.watch is not None
    before, started = loop.watch.step, time.monotonic()
    loop.steps_on(6)
    assert (loop.watch.step - before) / (time.monotonic() - started) < 40


def test_anomaly_detection_is_given_back(tmp_path: Path) -> None:
    with Loop(tmp_path) as running:
        running.send("set", "detect_anomaly", True)
        assert torch.is_anomaly_enabled()
    assert not torch.is_anomaly_enabled()


def test_the_graph_of_a_step_is_captured(loop: Loop) -> None:
    loop.send("capture_graph")
    loop.wait(lambda e: e.kind == "graph_captured")
    assert loop.watch is not None
    document = loop.run.document("graph")
    assert any(node["parameter"] == "0.weight" for node in document["nodes"])
    assert list((loop.watch.run_path / "blobs").glob("graph-*.torchviz.dot"))


@pytest.mark.parametrize("every", [0, 1])
def test_a_nan_names_the_first_module_and_pauses(tmp_path: Path, every: int) -> None:
    class Log(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(x)

    running = Loop(tmp_path, every=every, controls=Controls(on_nonfinite="pause"))
    running.model.insert(2, Log())  # the ReLU before it makes zeros: log gives -inf
    with running:
        event = running.wait(lambda e: isinstance(e, NonFinite))
        assert isinstance(event, NonFinite)
        assert (event.where, event.module, event.module_type) == ("activation", "2", "Log")
        assert event.policy == "paused"
        running.wait(lambda e: isinstance(e, Paused) and e.reason == "nonfinite")
        running.send("resume")
    events = [stored.event for stored in inspector.open_run(tmp_path / "loop").events()]
    assert sum(isinstance(e, NonFinite) for e in events) == 1


def test_an_exception_ends_the_run_as_failed(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(ValueError, match="mine"),
        inspector.watch(model, optimizer, run_dir=tmp_path, name="a") as watch,
    ):
        train(watch, model, optimizer, 2)
        raise ValueError("mine")
    with inspector.open_run(tmp_path / "a") as run:
        assert run.status == "failed"
        last = run.events()[-1].event
        assert isinstance(last, RunFailed)
        assert last.frames[-1].file == __file__
        assert last.frames[-1].code == 'raise ValueError("mine")'


def test_a_fault_of_ours_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("inspector.capture.forward.main_tensor", broken)
    monkeypatch.setattr("inspector.capture.stepping.measure_gradients", broken)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="a", every=1) as watch:
        train(watch, model, optimizer, 4)
    with inspector.open_run(tmp_path / "a") as run:
        failed = [s.event.probe for s in run.events() if isinstance(s.event, ProbeFailed)]
        assert failed == ["activations", "gradients"]
        assert len(run.series("loss").steps) == 4


def test_copies_and_pickles_of_a_watched_model_are_inert(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="a", every=1) as watch:
        train(watch, model, optimizer, 2)
        twin = copy.deepcopy(model)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        pickled = pickle.dumps((model, optimizer))
        calls = len(watch._recorder.observer.forward.entries)
        twin(torch.randn(2, 6)).sum().backward()
        assert len(watch._recorder.observer.forward.entries) == calls
    path = tmp_path / "model.pickle"
    path.write_bytes(pickled)
    code = (
        "import pickle, sys, torch; sys.modules['inspector'] = None; "
        f"m, o = pickle.load(open({str(path)!r}, 'rb')); "
        "m(torch.randn(2, 6)).sum().backward(); o.step(); o.zero_grad()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    buffer.seek(0)
    torch.load(buffer, weights_only=False)(torch.randn(2, 6))


def test_a_script_that_forgets_to_close_ends_in_order(tmp_path: Path) -> None:
    script = """
import sys, torch, inspector
model = torch.nn.Linear(6, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
watch = inspector.watch(model, optimizer, run_dir=sys.argv[1], name=sys.argv[2])
for _ in range(5):
    loss = model(torch.randn(8, 6)).square().mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    watch.record(loss=loss)
if sys.argv[2] == "bad":
    raise ValueError("mine")
"""
    for name, status in (("good", "finished"), ("bad", "failed")):
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), name],
            timeout=120, capture_output=True, check=False,
        )  # fmt: skip
        with inspector.open_run(tmp_path / name) as run:
            assert run.status == status
            assert len(run.series("loss").steps) == 5


def test_what_is_not_an_optimizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InspectorError, match="expects an optimizer"):
        inspector.watch(mlp(), [], run_dir=tmp_path)


def test_the_automatic_schedule_thins_and_says_so(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="a") as watch:
        train(watch, model, optimizer, 200)
    with inspector.open_run(tmp_path / "a") as run:
        assert any(s.event.kind == "schedule_changed" for s in run.events())
        assert len(run.series("grad_norm", "0.weight").steps) < 150
        assert len(run.series("overhead").steps) > 100
