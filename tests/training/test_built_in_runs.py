"""Runs from start to end, read back from their directory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.errors import ConfigError, InspectorError, ModelError, StoreError
from inspector.events import EpochFinished, NonFinite, Paused, RunFailed
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.task import build_task
from tests.runs import only, train

ENDLESS = RunConfig(epochs=100_000, controls=Controls(max_steps_per_s=200.0))


def test_a_run_is_recorded_from_start_to_end(tmp_path: Path) -> None:
    config = RunConfig(steps=60, batch_size=100, optimizer="adam", lr=3e-3)  # 4 epochs of 15
    run = train(config, tmp_path)
    assert run.status == "finished"
    assert RunConfig.from_dict(run.config) == config
    loss = run.series("loss")
    assert loss.steps.tolist() == list(range(60))
    assert loss.values[-10:].mean() < 0.6 * loss.values[:10].mean()
    assert run.series("epoch").values[-1] == 4.0
    assert len(run.series("val_loss").values) == 4
    finished = only(run, EpochFinished)
    assert [event.epoch for event in finished] == [0, 1, 2, 3]  # type: ignore[attr-defined]
    assert run.series("val_accuracy").values[-1] == pytest.approx(
        finished[-1].val_accuracy  # type: ignore[attr-defined]
    )


def test_watched_training_ends_with_the_weights_of_a_plain_loop(tmp_path: Path) -> None:
    config = RunConfig(model="resnet", steps=8, seed=5, momentum=0.9)
    run = train(config, tmp_path)
    saved = torch.load(run.path / "blobs" / "last.pt")["model"]

    task = build_task(config)
    task.model.train()
    for _, (inputs, targets) in zip(range(8), task.train_loader, strict=False):
        task.optimizer.zero_grad()
        task.loss_fn(task.model(inputs), targets).backward()
        task.optimizer.step()
    plain = task.model.state_dict()
    assert all(torch.equal(saved[name], plain[name]) for name in plain)


def test_validation_is_the_mean_over_the_held_out_part(tmp_path: Path) -> None:
    config = RunConfig(model="resnet", steps=3, batch_size=100)  # 359 held out: batches of 256, 103
    run = train(config, tmp_path)
    task = build_task(config)
    task.model.load_state_dict(torch.load(run.path / "blobs" / "last.pt")["model"])
    task.model.eval()
    inputs, targets = task.val_set.__getitems__(range(len(task.val_set)))
    with torch.no_grad():
        outputs = task.model(inputs)
    expected = torch.nn.functional.cross_entropy(outputs, targets).item()
    assert run.series("val_loss").values[-1] == pytest.approx(expected, rel=1e-5)
    accuracy = (outputs.argmax(1) == targets).float().mean().item()
    assert run.series("val_accuracy").values[-1] == pytest.approx(accuracy)


def test_one_run_at_a_time_that_can_be_stopped(
    tmp_path: Path, wait_for: Callable[..., Run]
) -> None:
    name = runner.start(ENDLESS, tmp_path, "first")
    with pytest.raises(ConfigError, match=r"first is still training in this process.* stop it"):
        runner.start(ENDLESS, tmp_path)
    runner.stop()
    assert runner.join(60)
    assert wait_for(tmp_path / name, "stopped").status == "stopped"
    assert runner.current() is None


def test_a_disk_that_takes_no_command_keeps_nothing_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("database or disk is full")

    name = runner.start(ENDLESS, tmp_path)
    monkeypatch.setattr(ControlWriter, "send", full)
    runner.stop()
    assert runner.join(30)
    assert Run(tmp_path / name).status == "stopped"


def test_the_run_outlives_a_reload_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.start(ENDLESS, tmp_path, "kept")
    monkeypatch.delitem(sys.modules, "inspector.training.runner")
    again = importlib.import_module("inspector.training.runner")
    assert again is not runner
    state = again.current()
    assert state is not None
    assert state.name == "kept"
    again.stop()
    assert again.join(60)


def test_what_is_refused_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wants"):
        runner.start(RunConfig(model_args={"in_features": 3}), tmp_path)
    assert list(tmp_path.iterdir()) == []


FAULTS = {
    "build": (
        """
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        raise KeyError("depth")  # here
""",
        None,
    ),
    "forward": (
        """
class Inner(nn.Module):
    def forward(self, x):
        raise LookupError("no such token")  # here
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.inner = Inner()
    def forward(self, x):
        return self.inner(self.head(x.flatten(1)))
""",
        None,
    ),
    "backward": (
        """
class Fault(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, grad):
        raise OSError("lost")  # here
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        return Fault.apply(self.head(x.flatten(1)))
""",
        None,
    ),
    "late forward": (
        """
class Inner(nn.Module):
    calls = 0
    def forward(self, x):
        Inner.calls += 1
        if Inner.calls == 5:
            raise LookupError("no such token")  # here
        return x
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.inner = Inner()
    def forward(self, x):
        return self.inner(self.head(x.flatten(1)))
""",
        "inner",
    ),
}


@pytest.mark.parametrize("where", FAULTS)
def test_an_error_of_the_users_code_is_a_failed_run(
    where: str, tmp_path: Path, user_model: Callable[[str], Path]
) -> None:
    source, module = FAULTS[where]
    path = user_model(source)
    run = train(RunConfig(model="mine", steps=50), tmp_path / "runs")
    assert run.status == "failed"
    (failed,) = only(run, RunFailed)
    assert isinstance(failed, RunFailed)
    assert failed.phase == where.split()[-1]
    assert {frame.file for frame in failed.frames} == {str(path)}
    assert failed.frames[-1].code.endswith("# here")
    assert "Traceback" in failed.traceback
    if module is not None:
        assert failed.module == module
        assert len(run.series("loss").values) == 3  # one call was the dry run's


def test_code_that_ends_the_program_is_a_failed_run_too(
    tmp_path: Path, user_model: Callable[[str], Path]
) -> None:
    user_model("""
class Mine(nn.Module):
    def __init__(self, in_features=64, num_classes=10):
        super().__init__()
        self.head, self.calls = nn.Linear(in_features, num_classes), 0
    def forward(self, x):
        self.calls += 1
        if self.calls == 4:
            raise SystemExit("enough")
        return self.head(x.flatten(1))
""")
    run = train(RunConfig(model="mine", steps=50), tmp_path / "runs")
    assert run.status == "failed"
    (failed,) = only(run, RunFailed)
    assert isinstance(failed, RunFailed)
    assert (failed.error, failed.message) == ("SystemExit", "enough")


def test_anomaly_detection_names_op_and_line_and_pauses(
    tmp_path: Path, user_model: Callable[[str], Path], wait_for: Callable[..., Run]
) -> None:
    path = user_model("""
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        x = self.head(x.flatten(1))
        return x + torch.sqrt(x * 0)  # here
""")
    controls = Controls(detect_anomaly=True, on_nonfinite="pause")
    name = runner.start(RunConfig(model="mine", steps=50, controls=controls), tmp_path / "runs")
    run = wait_for(tmp_path / "runs" / name, "paused")
    weights = [stored.event for stored in run.events() if isinstance(stored.event, NonFinite)]
    (born,) = [event for event in weights if event.where == "backward"]
    assert born.op in ("SqrtBackward0", "MulBackward0")
    assert (born.file, born.policy) == (str(path), "paused")
    assert born.code.endswith("# here")
    assert [event.reason for event in only(run, Paused)] == ["nonfinite"]  # type: ignore[attr-defined]
    runner.stop()
    assert runner.join(60)
    state = torch.load(run.path / "blobs" / "last.pt")
    fresh = build_task(RunConfig(model="mine")).model.state_dict()
    assert all(torch.equal(state["model"][key], fresh[key]) for key in fresh)  # step was skipped


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(RunConfig(steps=2, torch_threads=1), tmp_path)
    assert torch.get_num_threads() == before


def test_a_child_process_trains_the_same(tmp_path: Path, wait_for: Callable[..., Run]) -> None:
    config = RunConfig(steps=20, in_process=False, torch_threads=torch.get_num_threads())
    name = runner.start(config, tmp_path, "child")
    assert runner.current() is None
    child = wait_for(tmp_path / name, "finished")
    here = train(RunConfig(steps=20), tmp_path)
    assert child.series("loss").values.tolist() == here.series("loss").values.tolist()


def test_a_child_refuses_as_this_process_does(tmp_path: Path) -> None:
    config = RunConfig(model_args={"in_features": 3}, in_process=False)
    with pytest.raises(ModelError, match="wants"):
        runner.start(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InspectorError, match="ended with code 1 before the run began"):
        runner.start(RunConfig(in_process=False), tmp_path)
