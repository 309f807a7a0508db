"""A fork from a state that the time machine held in memory ends as the run itself does."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from same import differences, last, recorded

from inspector.commands import Command, Controls
from inspector.config import RunConfig
from inspector.errors import CommandError, ConfigError
from inspector.events import CheckpointSaved, CommandApplied, CommandRefused, RunContinued
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.timemachine import history
from inspector.training import runner
from inspector.training.forking import fork, fork_reference
from inspector.views.checkpoints import checkpoints, lineage, snapshots
from inspector.watching import Watch

AWAKE = Controls(on_nonfinite="pause")  # with short steps and "continue" the time machine rests
BASE = RunConfig(steps=40, batch_size=100, torch_threads=1, controls=AWAKE)  # 15 batches an epoch


@pytest.fixture(autouse=True)
def every_five_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_LEAST", 5)
    monkeypatch.setattr(history, "_MOST", 5)


def trained(
    config: RunConfig, runs_dir: Path, then: dict[int, list[Command]], name: str = "parent"
) -> Run:
    """A run to which commands are given before these steps."""
    task = runner.prepare(config, runs_dir, name)
    assert not isinstance(task, str)
    made: list[Watch] = []

    def started(watch: Watch) -> None:
        boundary = watch.boundary

        def commanding() -> None:
            boundary()
            for command in then.get(watch.step, ()):
                watch.apply(command)

        watch.boundary = commanding  # type: ignore[method-assign]
        made.append(watch)

    runner.train_and_record(task, runs_dir, name, started)
    return Run(runs_dir / name)


def asked(step: int | str) -> Command:
    return Command(name="checkpoint", value=step)


CASES: dict[str, dict[str, Any]] = {
    "momentum and a schedule": {"momentum": 0.9, "schedule": {"name": "cosine"}},
    "batch norm": {"model": "resnet", "steps": 11, "batch_size": 400},
    "dropout, adam and warm-up": {
        "model": "transformer", "data": "digit_rows", "steps": 11, "lr": 0.01,
        "optimizer": "adam", "schedule": {"name": "warmup_cosine"},
    },
    "loss scaling": {"precision": "fp16", "lr": 0.01},
    "gradients that pile up": {"lr": 1e-4, "zero_grad": False, "steps": 22},
    "accumulation": {"accumulate": 2, "batch_size": 90},
    "augmentation": {
        "augment": [{"name": "RandomRotation", "degrees": 20}], "steps": 20, "batch_size": 200,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_snapshot_is_the_checkpoint_of_its_step_and_ends_as_the_run_does(
    case: str, tmp_path: Path
) -> None:
    given = CASES[case]
    controls = {name: value for name, value in given.items() if name in Controls.__slots__}
    settings = {name: value for name, value in given.items() if name not in controls}
    config = dataclasses.replace(
        BASE, **settings, checkpoint_every=10, controls=dataclasses.replace(AWAKE, **controls)
    )
    parent = trained(config, tmp_path, {11: [asked(10)]})
    folder = parent.path / "blobs" / "checkpoints"
    asked_for = torch.load(folder / "step-000010.pt", weights_only=True)
    assert asked_for["reason"] == "snapshot"
    child = fork("parent", "10", tmp_path)
    assert runner.join(60)
    forked = Run(tmp_path / child)
    assert forked.status == "finished", [stored.event.text for stored in forked.events()]
    assert list(differences(last(parent), last(forked))) == []
    assert recorded(forked) == {s: v for s, v in recorded(parent).items() if s >= 10}
    # Byte for byte what the loop itself writes at that step.
    (folder / "step-000010.pt").unlink()
    plainly = trained(config, tmp_path, {}, "plainly")
    written = torch.load(plainly.path / "blobs/checkpoints/step-000010.pt", weights_only=True)
    for state in (asked_for, written):
        for name in ("run", "wall", "reason"):
            del state[name]
    assert list(differences(asked_for, written)) == []


def test_what_was_done_by_hand_before_the_step_is_in_the_snapshot(tmp_path: Path) -> None:
    by_hand = [
        Command(name="set", control="lr", value=0.003),
        Command(name="set", control="clip", value="norm"),
        Command(name="set", control="frozen", value=["layers.0"]),
    ]
    parent = trained(BASE, tmp_path, {15: by_hand, 17: [asked("earliest")], 23: [asked(20)]})
    saved = [s.event for s in parent.events() if isinstance(s.event, CheckpointSaved)]
    assert [(one.at, one.reason) for one in saved[:2]] == [(10, "snapshot"), (20, "snapshot")]
    before = torch.load(parent.path / "blobs/checkpoints/step-000010.pt", weights_only=True)
    assert before["config"]["controls"]["clip"] == "off" and before["frozen"] == []
    child = fork("parent", "20", tmp_path)
    assert runner.join(60)
    forked = Run(tmp_path / child)
    assert list(differences(last(parent), last(forked))) == []
    origin = lineage(forked)
    assert origin is not None and (origin.step, origin.changes) == (20, {})


def test_at_the_end_and_at_the_beginning_of_an_epoch(tmp_path: Path) -> None:
    parent = trained(BASE, tmp_path, {1: [asked(0)], 16: [asked(15)]})
    for step in ("0", "15"):  # before anything was learned; after the last batch of an epoch
        child = fork("parent", step, tmp_path, name=f"from-{step}")
        assert runner.join(60)
        forked = Run(tmp_path / child)
        assert list(differences(last(parent), last(forked))) == []
        assert recorded(forked, "val_loss") == recorded(parent, "val_loss")


def test_the_earlier_state_of_a_run_that_became_nan_is_forked_while_it_is_paused(
    tmp_path: Path, wait_for: Callable[..., Run]
) -> None:
    bad = {"step": 12, "control": "lr", "value": 1e30}
    runner.start(dataclasses.replace(BASE, by_hand=[bad]), tmp_path, "parent")
    run = wait_for(tmp_path / "parent", "paused")
    assert snapshots(run) == [5, 10]
    path = Path(fork_reference("parent@10", tmp_path))
    assert path == (run.path / "blobs/checkpoints/step-000010.pt").resolve()
    assert [(one.name, one.step) for one in checkpoints(run)] == [("10", 10)]
    with pytest.raises(ConfigError, match="no snapshot of step 3: it holds 5 and 10 now; a"):
        fork_reference("parent@3", tmp_path)
    with contextlib.closing(ControlWriter(run.path)) as control:
        control.send(Command(name="stop"))
    assert runner.join(60)
    assert snapshots(run) == []
    with pytest.raises(ConfigError, match=r"no checkpoint '11'; it has .*10"):
        fork("parent", "11", tmp_path)
    changes = {"lr": 0.05, "on_nonfinite": "continue"}
    child = fork("parent", "10", tmp_path, changes)
    assert runner.join(60)
    (told,) = [s.event for s in Run(tmp_path / child).events() if isinstance(s.event, RunContinued)]
    assert (told.at, told.changes) == (10, changes)


def test_what_is_held_no_more_is_refused_in_one_sentence(tmp_path: Path) -> None:
    parent = trained(BASE, tmp_path, {3: [asked("earliest")], 18: [asked(5)]})
    events = [s.event for s in parent.events()]
    applied = [e for e in events if isinstance(e, CommandApplied) and e.name == "checkpoint"]
    assert [e.effective for e in applied] == ["blobs/checkpoints/step-000000.pt"]
    (refused,) = [e for e in events if isinstance(e, CommandRefused)]
    assert refused.reason == (
        "The time machine holds no snapshot of step 5: it holds 10 and 15 now; a run keeps them "
        "while it is paused."
    )


def test_a_model_too_large_to_be_copied_has_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history.History.__init__, "__kwdefaults__",
                        {"batch_bytes": 1 << 20, "state_bytes": 100})  # fmt: skip
    parent = trained(BASE, tmp_path, {3: [asked("earliest")]})
    (refused,) = [s.event for s in parent.events() if isinstance(s.event, CommandRefused)]
    assert refused.reason.startswith("The time machine holds no snapshot yet (the state takes 0 MB")


@pytest.mark.parametrize("value", [-1, 1.5, True, "latest"])
def test_the_command_takes_a_step_or_the_earliest(value: Any) -> None:
    with pytest.raises(CommandError, match="takes nothing, 'earliest' or a step, 0 or more"):
        Command(name="checkpoint", value=value)
