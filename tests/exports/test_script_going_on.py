"""Scripts and configurations of runs that go on from a checkpoint, resumed or forked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted import assert_same, assert_script_repeats, change, go_on, run, weights

import inspector
from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.errors import ExportError
from inspector.exports.export import export
from inspector.store.housekeeping import trash_run

TINY = {"hidden": 16, "depth": 1, "dropout": 0.2}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that has a state: schedule, rates by hand, loss scaling, patience, Adam."""
    config = RunConfig(
        data="two_moons", model_args=TINY, optimizer="adamw", lr=0.02, epochs=3, batch_size=64,
        precision="fp16", early_stopping=3, checkpoint_every=10,
        controls=Controls(schedule={"name": "cosine"}, accumulate=2),
        by_hand=[change(4, "lr", 0.01), change(6, "frozen", ["head"])],
    )  # fmt: skip
    return run(config, tmp_path_factory.mktemp("going_on"), "parent")


def test_a_resumed_run_in_the_middle_of_an_epoch(parent: Path, tmp_path: Path) -> None:
    resumed = go_on(parent, 10, "resumed")
    text = assert_script_repeats(resumed, tmp_path / "out")
    assert 'CHECKPOINT = Path(__file__).with_name("checkpoint.pt")  # parent@10' in text
    assert "Goes on from the checkpoint parent@10" in text
    assert_same(weights(resumed), weights(parent))


FORKS: dict[str, dict[str, Any]] = {
    "controls": {
        "lr": 0.05, "clip": "norm", "frozen": [], "accumulate": 1,
        "schedule": {"name": "exponential", "gamma": 0.9, "unit": "step"},
    },
    "another optimizer": {"optimizer": "sgd", "precision": "float32"},
}  # fmt: skip


@pytest.mark.parametrize("changes", FORKS.values(), ids=FORKS)
def test_a_fork(changes: dict[str, Any], parent: Path, tmp_path: Path) -> None:
    fork = go_on(parent, 10, "fork", **changes)
    assert_script_repeats(fork, tmp_path / "out")
    assert any(not weights(fork)[name].equal(kept) for name, kept in weights(parent).items())


def test_a_schedule_nobody_touched_goes_on_as_pytorchs_own(tmp_path: Path) -> None:
    config = RunConfig(
        data="two_moons", model_args=TINY, epochs=2, batch_size=64, checkpoint_every=5,
        controls=Controls(schedule={"name": "one_cycle"}),
    )  # fmt: skip
    resumed = go_on(run(config, tmp_path / "runs"), 5, "resumed")
    assert "class Plan" not in assert_script_repeats(resumed, tmp_path / "out")


def test_the_parent_may_be_thrown_away(tmp_path: Path) -> None:
    config = RunConfig(data="two_moons", model_args=TINY, steps=4)
    first = run(config, tmp_path / "runs", "first")
    fork = go_on(first, "last", "second", steps=8, lr=0.01)
    trash_run(first.parent, "first")
    assert_script_repeats(fork, tmp_path / "out")
    exported = export(inspector.open_run(fork), "config", tmp_path / "again.json")
    assert any("keep that file" in note for note in exported.notes)
    content = json.loads(exported.path.read_text("utf-8"))
    again = run(RunConfig.from_dict(content), tmp_path / "runs", "again")
    assert_same(weights(again), weights(fork))


def test_a_configuration_goes_on_and_repeats_what_was_done(parent: Path, tmp_path: Path) -> None:
    by_hand = [change(12, "clip", "value"), change(14, "lr", None), change(20, "stop")]
    fork = go_on(parent, 10, "by_hand", momentum=0.5, by_hand=by_hand)
    exported = export(inspector.open_run(fork), "config", tmp_path / "fork.json").path
    config = RunConfig.from_dict(json.loads(exported.read_text("utf-8")))
    assert [entry["step"] for entry in config.by_hand] == [12, 14, 20]
    assert config.controls.momentum == 0.5
    again = run(config, parent.parent, "again")
    assert inspector.open_run(again).meta["lineage"]["parent"] == "parent"
    assert_same(weights(again), weights(fork))


@pytest.mark.parametrize("to", ["script", "config"])
def test_without_the_checkpoint_it_is_refused(to: str, tmp_path: Path) -> None:
    first = run(RunConfig(data="two_moons", steps=2), tmp_path, "first")
    second = go_on(first, "last", "second", steps=4)
    for gone in (second / "blobs" / "origin.pt", first / "blobs" / "checkpoints" / "best.pt"):
        gone.unlink()
    shutil.copy(second / "blobs" / "checkpoints" / "last.pt", first / "blobs" / "checkpoints")
    with pytest.raises(ExportError, match="from run first at step 2, but that checkpoint is gone"):
        export(inspector.open_run(second), to, tmp_path / "out")
