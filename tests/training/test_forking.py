"""A fork goes on from the state of another run, with other settings, on the same batches."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from same import differences, last, recorded
from typer.testing import CliRunner

from inspector import cli
from inspector.commands import Command, Controls
from inspector.config import RunConfig
from inspector.errors import CommandError, ConfigError
from inspector.events import CommandApplied, CommandRefused, RunContinued
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.forking import checkpoint_now, config_from, fork
from inspector.training.task import build_task
from inspector.views.checkpoints import checkpoints, lineage
from inspector.watching import watch

BASE = RunConfig(steps=40, batch_size=100, torch_threads=1)


def finished(runs_dir: Path, name: str) -> Run:
    assert runner.join(60)
    run = Run(runs_dir / name)
    assert run.status == "finished", [stored.event.text for stored in run.events()]
    return run


def send(run: Path, command: Command) -> None:
    with contextlib.closing(ControlWriter(run)) as control:
        control.send(command)


@pytest.fixture
def parent(tmp_path: Path) -> Run:
    config = dataclasses.replace(
        BASE, checkpoint_every=10, momentum=0.9, controls=Controls(schedule={"name": "cosine"})
    )
    return finished(tmp_path, runner.start(config, tmp_path, "parent"))


def test_a_fork_without_changes_is_the_run_itself(parent: Run) -> None:
    forked = finished(parent.path.parent, fork("parent", "20", parent.path.parent))
    assert list(differences(last(parent), last(forked))) == []
    assert recorded(forked) == {s: v for s, v in recorded(parent).items() if s >= 20}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 0.02}, {"lr": 0.02}),
        ({"clip": "norm", "clip_threshold": 0.01}, {"clip": "norm", "clip_threshold": 0.01}),
        ({"controls.accumulate": 3}, {"accumulate": 3}),
        ({"momentum": 0.0}, {"momentum": 0.0}),
    ],
)
def test_a_fork_differs_from_its_first_step_on_and_not_before(
    changes: dict[str, Any], told: dict[str, Any], parent: Run
) -> None:
    runs_dir = parent.path.parent
    forked = finished(runs_dir, fork("parent", "20", runs_dir, changes))
    mine, theirs = recorded(forked), recorded(parent)
    if "controls.accumulate" not in changes:
        assert mine[20] == theirs[20]  # the same batch, weights and random numbers
    assert mine[30] != theirs[30]
    (event,) = [s for s in forked.events() if isinstance(s.event, RunContinued)]
    assert isinstance(event.event, RunContinued)
    assert (event.step, event.event.parent, event.event.changes) == (20, "parent", told)
    applied = [s.event for s in forked.events() if isinstance(s.event, CommandApplied)]
    assert {one.name: one.requested for one in applied} == told
    origin = lineage(forked)
    assert origin is not None
    assert (origin.parent, origin.step, origin.kind, origin.changes) == ("parent", 20, "fork", told)


def test_the_learning_rate_of_a_fork_is_that_of_a_plain_loop(parent: Run) -> None:
    runs_dir = parent.path.parent
    changes = {"lr": 0.05, "schedule": "constant"}
    forked = finished(runs_dir, fork("parent", "30", runs_dir, changes))
    assert list(recorded(forked, "lr").values()) == pytest.approx([0.05] * 10)

    start = torch.load(parent.path / "blobs/checkpoints/step-000030.pt", weights_only=True)
    task = build_task(BASE)
    task.model.load_state_dict(start["model"])
    momentum = [entry["momentum_buffer"] for entry in start["optimizer"]["state"].values()]
    sgd = torch.optim.SGD(task.model.parameters(), lr=0.05, momentum=0.9)
    for parameter, buffer in zip(task.model.parameters(), momentum, strict=True):
        sgd.state[parameter]["momentum_buffer"] = buffer.clone()
    generator = torch.Generator()
    for state in start["begun"]["generators"]:
        generator.set_state(state)
    assert start["at"] == {"step": 30, "epoch": 1, "batch": 15}  # all batches are done
    for _ in range(2):  # what the loader and its sampler draw in an epoch; see torch.utils.data
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        order = torch.randperm(len(task.train_set), generator=generator)
        torch.randperm(len(task.train_set), generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for part in order.split(100)[:10]:
        inputs, targets = task.train_set.__getitems__(part.tolist())
        sgd.zero_grad()
        task.loss_fn(task.model(inputs), targets).backward()  # type: ignore[misc]
        sgd.step()
    torch.set_num_threads(threads)
    ended = last(forked)["model"]
    plain = task.model.state_dict()
    assert all(torch.equal(ended[name], plain[name]) for name in plain)


def test_a_live_run_is_forked_at_its_present_step_while_it_goes_on(
    tmp_path: Path, wait_for: Callable[..., Run]
) -> None:
    config = dataclasses.replace(
        BASE, steps=100_000, controls=Controls(max_steps_per_s=100.0), torch_threads=1
    )
    runner.start(config, tmp_path, "live")
    name = fork("live", "now", tmp_path, {"lr": 0.01, "steps": 60, "max_steps_per_s": None})
    child = wait_for(tmp_path / name, "finished", "failed", "stopped")
    assert child.status in ("finished", "stopped")
    parent = wait_for(tmp_path / "live", "running")
    assert runner.current() is not None
    origin = lineage(child)
    assert origin is not None and origin.changes == {"lr": 0.01, "max_steps_per_s": None}
    runner.stop()
    assert runner.join(60)
    first = min(recorded(child))
    assert first == origin.step
    assert recorded(child)[first] == recorded(parent)[first]


def test_a_paused_run_writes_a_checkpoint_at_once(
    tmp_path: Path, wait_for: Callable[..., Run]
) -> None:
    runner.start(
        dataclasses.replace(BASE, controls=Controls(schedule={"name": "exponential"})),
        tmp_path,
        "paused",
    )
    send(tmp_path / "paused", Command(name="pause"))
    run = wait_for(tmp_path / "paused", "paused", "finished")
    if run.status == "finished":
        pytest.skip("it was over before the command came")
    path = checkpoint_now("paused", tmp_path)
    step = torch.load(path, weights_only=True)["step"]
    (kept,) = checkpoints(run)
    assert (kept.step, kept.name) == (step, str(step))
    send(tmp_path / "paused", Command(name="resume"))
    whole = finished(tmp_path, "paused")
    forked = finished(tmp_path, fork("paused", str(step), tmp_path))
    assert list(differences(last(whole), last(forked))) == []


def test_a_run_that_has_ended_is_not_asked(parent: Run) -> None:
    with pytest.raises(ConfigError, match="Run parent is finished; fork from one of its"):
        checkpoint_now("parent", parent.path.parent)


def test_a_loop_of_ones_own_refuses_in_one_sentence(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, run_dir=tmp_path, name="own") as watched:
        watched.apply(Command(name="checkpoint"))
    events = [s.event for s in Run(tmp_path / "own").events()]
    (refused,) = [event for event in events if isinstance(event, CommandRefused)]
    assert refused.reason.startswith("Checkpoints are kept by the built-in loop")


def test_values_are_checked_before_anything_is_created(parent: Run) -> None:
    runs_dir = parent.path.parent
    with pytest.raises(CommandError, match="lr must be 0 or greater"):
        fork("parent", "20", runs_dir, {"lr": -1})
    with pytest.raises(ConfigError, match="Unknown setting 'speed'"):
        fork("parent", "20", runs_dir, {"speed": 1})
    with pytest.raises(ConfigError, match="another training: batch_size is 100 there and 7 here"):
        fork("parent", "20", runs_dir, {"batch_size": 7})
    assert [path.name for path in runs_dir.iterdir()] == ["parent"]


def test_controls_in_force_are_the_base_of_a_fork(tmp_path: Path) -> None:
    task = runner.prepare(dataclasses.replace(BASE, checkpoint_every=20), tmp_path, "x")
    assert not isinstance(task, str)
    runner.train_and_record(
        task, tmp_path, "parent",
        lambda watched: watched.apply(Command(name="set", control="clip", value="norm")),
    )  # fmt: skip
    assert config_from("parent@20", tmp_path).controls.clip == "norm"
    back = finished(tmp_path, fork("parent", "20", tmp_path, {"clip": "off"}))
    (event,) = [s.event for s in back.events() if isinstance(s.event, RunContinued)]
    assert event.changes == {"clip": "off"}


def test_another_optimizer_begins_without_the_state_of_the_old(parent: Run) -> None:
    runs_dir = parent.path.parent
    forked = finished(runs_dir, fork("parent", "20", runs_dir, {"optimizer": "adam"}))
    (event,) = [s.event for s in forked.events() if isinstance(s.event, RunContinued)]
    assert event.notes == ["The state of SGD is of no use to Adam, which begins without."]


def test_the_command_line_resumes_and_forks(parent: Run) -> None:
    folder = str(parent.path.parent)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(
            cli.app, [*arguments, "--run-dir", folder], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.output

    said = call("train", "--headless", "--resume", "parent@20", "--name", "resumed")
    assert "resumed finished after 40 steps" in said
    whole, rest = last(parent), last(Run(parent.path.parent / "resumed"))
    assert list(differences(whole, rest)) == []
    said = call("fork", "parent@20", "--set", "lr=0.01", "--set", "clip=norm", "--steps", "30")
    assert "parent-fork finished after 30 steps" in said
    origin = lineage(Run(parent.path.parent / "parent-fork"))
    assert origin is not None and origin.changes == {"lr": 0.01, "clip": "norm"}
