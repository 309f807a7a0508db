"""Trains a run, executes the script that was exported of it, and compares the weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from script_process import run_script

import inspector
from inspector.config import RunConfig
from inspector.exports.export import export
from inspector.training.forking import config_from
from inspector.training.runner import prepare, train_and_record


def change(step: int, control: str, value: Any = True) -> dict[str, Any]:
    return {"step": step, "control": control, "value": value}


def run(config: RunConfig, runs: Path, name: str = "run") -> Path:
    """Trains with one thread, since several wait for each other on a busy machine."""
    task = prepare(dataclasses.replace(config, torch_threads=1), runs, name)
    assert not isinstance(task, str)
    paths: list[Path] = []
    train_and_record(task, runs, name, lambda watch: paths.append(watch.run_path))
    with inspector.open_run(paths[0]) as recorded:
        texts = [one.event.text for one in recorded.events()]
        assert recorded.status in ("finished", "stopped"), texts
    return paths[0]


def go_on(parent: Path, at: int | str, name: str, **changes: Any) -> Path:
    """A run that goes on from a checkpoint of another one."""
    runs = parent.parent
    return run(config_from(f"{parent.name}@{at}", runs, changes), runs, name)


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path / "blobs" / "checkpoints" / "last.pt", weights_only=True)
    return dict(state["model"])


def execute(folder: Path, script: str = "train.py") -> dict[str, torch.Tensor]:
    """Runs the script where this package cannot be imported."""
    code, said = run_script(folder / script, seconds=240)
    assert code == 0, said
    return dict(torch.load(folder / "final.pt", weights_only=True))


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def assert_script_repeats(path: Path, out: Path) -> str:
    """Exports the run, executes the script and compares; its text."""
    export(inspector.open_run(path), "script", out)
    assert_same(execute(out), weights(path))
    return (out / "train.py").read_text("utf-8")
