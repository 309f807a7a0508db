"""Overfitting one batch, reproducibility, deterministic algorithms and compiled models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from same import differences, last, recorded
from typer.testing import CliRunner

from inspector import cli
from inspector.config import RunConfig
from inspector.errors import ConfigError, InspectorError, ModelError
from inspector.events import Notice, RunFailed
from inspector.training import compiling, runner
from inspector.training.checks import check_overfit
from inspector.training.overfitting import overfit
from inspector.training.reproducibility import Record, compare, deterministic, trace
from inspector.training.task import build_task
from inspector.views.health import health
from tests.runs import train

BASE = RunConfig(steps=20, batch_size=100, torch_threads=1)


# ------------------------------------------------------------ a few batches again and again


def test_only_the_first_batches_are_trained_on_again_and_again(tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, overfit_batches=2, steps=60, lr=0.5)
    task = build_task(config)
    (one, _), (two, _) = task.train_loader
    again = [inputs for inputs, _ in task.train_loader]
    assert [torch.equal(*pair) for pair in zip(again, (one, two), strict=True)] == [True, True]
    assert task.steps_per_epoch == 2
    run = train(config, tmp_path)
    loss = recorded(run)
    assert loss[59] < 0.3 * loss[0]
    assert len(recorded(run, "val_loss")) == 30


def test_a_model_that_works_learns_a_batch_by_heart() -> None:
    config = RunConfig(optimizer="adam", lr=0.01)
    told: list[int] = []
    verdict = overfit(config, 100, lambda step, _: told.append(step))
    assert verdict.learned
    assert verdict.text.startswith(f"Learns 64 samples by heart in {verdict.steps} steps (loss 2.3")
    assert told == list(range(1, verdict.steps + 1))
    task = build_task(dataclasses.replace(config, overfit_batches=1))  # an oracle: the same by hand
    inputs, targets = next(iter(task.train_loader))
    for _ in range(verdict.steps - 1):
        task.optimizer.zero_grad()
        task.loss_fn(task.model(inputs), targets).backward()  # type: ignore[misc]
        task.optimizer.step()
    assert torch.equal(task.model(inputs).argmax(1), targets)


@pytest.mark.parametrize(
    ("changes", "text", "meaning"),
    [
        ({"lr": 1e-7}, r"Does not learn 64 samples by heart: the loss stays at 2\.3", "not moved"),
        ({"lr": 1e8}, "the loss becomes nan", "no longer finite after"),
        ({"lr": 0.02}, "the loss stays at", "still falling: allow more steps"),
        ({"model": "deep_sigmoid", "lr": 0.5}, "the loss stays at 2", "gradients may vanish"),
    ],
)
def test_why_a_batch_is_not_learned_is_said(
    changes: dict[str, Any], text: str, meaning: str
) -> None:
    import re

    verdict = overfit(dataclasses.replace(RunConfig(), **changes), 40)
    assert not verdict.learned
    assert re.search(text, verdict.text)
    assert re.search(meaning, verdict.meaning)


# ------------------------------------------------------------ do two runs agree?

NET = """
import random
import torch
from torch import nn

SYSTEM = random.SystemRandom()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 20)
        self.head = nn.Linear(20, 10)
        self.drop = nn.Dropout(0.2)
        self.calls = 0
        # init
    def forward(self, x):
        self.calls += 1
        x = self.drop(self.body(x.flatten(1)).relu())
        # forward
        return self.head(x)

class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 300
    def __getitem__(self, row):
        noise = 0
        # data
        return torch.full((64,), row / 300) + noise, torch.tensor(row % 10)
"""
FAULTS = {
    "": (None, "", ""),
    "# init": ("with torch.no_grad(): self.head.bias[3] = SYSTEM.random()", "initial weights",
               "head.bias"),
    "# forward": ("x = x + SYSTEM.random() * (self.calls > 3)", "loss", ""),
    "# data": ("noise = SYSTEM.random()", "batch", ""),
}  # fmt: skip


@pytest.mark.parametrize("place", FAULTS)
def test_the_first_difference_between_two_runs_is_named(place: str, tmp_path: Path) -> None:
    line, where, tensor = FAULTS[place]
    path = tmp_path / "net.py"
    path.write_text(NET.replace(place, line) if line else NET)
    config = RunConfig(
        model=f"file:{path}:Net", data=f"file:{path}:Pairs", batch_size=50, optimizer="adam",
        lr=1e-3, torch_threads=1,
    )  # fmt: skip
    runs: list[list[Record]] = [[], []]
    for records in runs:
        trace(config, 6, records.append)
    found = compare(*runs)
    assert (found.same, found.where, found.tensor) == (not place, where, tensor)
    if not place:
        assert found.text == "Two runs agree bit for bit over 6 steps."
    else:
        step = {"# forward": 2}.get(place, 0)  # one call was the dry run's
        assert found.step == step
        assert found.text.startswith(f"Two runs differ from step {step} on: first in the {where}")


def test_a_step_of_the_optimizer_that_differs_is_told_from_one_of_the_gradient() -> None:
    first = {"state": {"w": 1}, "batch": 1, "loss": 1, "gradients": {"w": 5, "v": 6}}
    other = {**first, "gradients": {"w": 5, "v": 7}}
    found = compare([first], [other])
    assert (found.step, found.where, found.tensor) == (0, "gradients", "v")
    found = compare([first, first], [first, {**first, "state": {"w": 2}}])
    assert (found.step, found.where, found.tensor) == (0, "weights", "w")


def test_an_error_of_the_users_code_ends_the_check(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET.replace("# forward", "if self.calls == 4: raise KeyError('token')"))
    config = RunConfig(model=f"file:{path}:Net", batch_size=50, torch_threads=1)
    with pytest.raises(InspectorError, match="KeyError: 'token'"):
        trace(config, 6, lambda _: None)


def test_the_command_line_checks_in_processes_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET.replace("# init", FAULTS["# init"][0] or ""))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        cli.app,
        ["check", "reproducibility", "--steps", "2", "--set", f"model=file:{path}:Net"],
        catch_exceptions=False,
    )
    assert result.exit_code == 1
    assert "differ from step 0 on: first in the initial weights of head.bias" in result.output
    assert list(tmp_path.iterdir()) == [path] or not (tmp_path / "runs").exists()


def test_a_check_refuses_as_a_run_does() -> None:
    with pytest.raises(ModelError, match="lenet takes samples of layout image"):
        check_overfit(RunConfig(model="lenet", data="diabetes"), 3)


# ------------------------------------------------------------ deterministic algorithms


def test_switches_are_on_during_the_run_only(
    tmp_path: Path, user_model: Callable[[str], Path]
) -> None:
    user_model("""
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        return self.head(x.flatten(1))
""")
    run = train(dataclasses.replace(BASE, model="mine", deterministic=True), tmp_path)
    assert run.status == "finished"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    with deterministic(True):
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)


PUT = """
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        y = self.head(x.flatten(1))
        WHEN
        return y
"""
PUT_LINE = "y.detach().put_(torch.tensor([0]), torch.tensor([0.0]))"


def test_an_operation_without_a_deterministic_version_is_named_before_the_start(
    tmp_path: Path, user_model: Callable[[str], Path]
) -> None:
    user_model(PUT.replace("WHEN", PUT_LINE))
    config = dataclasses.replace(BASE, model="mine", deterministic=True)
    with pytest.raises(ModelError, match="put_ has no deterministic version, and deterministic is"):
        runner.start(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_or_when_it_is_reached(tmp_path: Path, user_model: Callable[[str], Path]) -> None:
    user_model(PUT.replace("WHEN", f"if torch.is_grad_enabled(): {PUT_LINE}"))
    run = train(dataclasses.replace(BASE, model="mine", deterministic=True), tmp_path / "runs")
    (failed,) = [s.event for s in run.events() if isinstance(s.event, RunFailed)]
    assert failed.message.startswith("put_ has no deterministic version")


# ------------------------------------------------------------ torch.compile


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_trains_and_what_it_hides_is_said(backend: str, tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, compile=backend)
    run = train(config, tmp_path, "compiled")
    assert run.status == "finished", [s.event.text for s in run.events()]
    plain = train(dataclasses.replace(config, compile=False), tmp_path, "plain")
    mine, theirs = recorded(run), recorded(plain)
    assert list(mine) == list(theirs)
    assert list(mine.values()) == pytest.approx(list(theirs.values()), rel=1e-5)
    assert set(last(run)["model"]) == set(last(plain)["model"])
    notes = [s.event.message for s in run.events() if isinstance(s.event, Notice)]
    assert any(f"runs compiled by {backend}" in note for note in notes)
    assert len(run.series("grad_norm", "head.weight").steps) > 0
    blind = {module.path for module in health(run).modules if module.sight == "blind"}
    assert {"head", "hidden.0.0"} <= blind
    seen = {module.path for module in health(plain).modules if module.sight == "blind"}
    assert not seen


def test_a_compiled_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, compile="eager", checkpoint_every=8)
    whole = train(config, tmp_path, "whole")
    rest = train(dataclasses.replace(config, resume="whole@8"), tmp_path, "rest")
    assert list(differences(last(whole), last(rest))) == []


def test_without_a_compiler_the_model_is_trained_as_it_is(tmp_path: Path) -> None:
    from torch._dynamo import register_backend
    from torch._dynamo.backends import registry

    def broken(_graph: Any, _inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler was found.\nmore")

    register_backend(broken, name="broken")
    try:
        run = train(dataclasses.replace(BASE, compile="broken"), tmp_path)
    finally:
        registry._COMPILER_FNS.pop("broken", None)
        registry._BACKENDS.pop("broken", None)
    assert run.status == "finished"
    (note,) = [s.event.message for s in run.events() if isinstance(s.event, Notice)]
    assert note.startswith("torch.compile does not work here (")
    assert "no C++ compiler was found" in note
    assert note.endswith("): the model is trained uncompiled.")
    assert not math.isnan(recorded(run)[19])


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no backend named 'fast'; choose one of .*inductor"):
        runner.start(dataclasses.replace(BASE, compile="fast"), tmp_path)
    assert compiling._try("eager", torch.device("cpu")) == ""
