"""A run exported as a script or a configuration ends with the same weights, bit for bit."""

from __future__ import annotations

import ast
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from scripted import assert_same, assert_script_repeats, change, execute, run, weights

import inspector
from inspector.commands import Command, Controls
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.exports.export import export
from inspector.store.control import ControlWriter
from inspector.training.runner import prepare, train_and_record

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features, out_features, hidden=12):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden), nn.Tanh(), nn.Dropout(0.2),
            nn.Linear(hidden, out_features),
        )

    def forward(self, x):
        return self.layers(x)
"""


CASES = {
    "controls by hand": RunConfig(
        steps=45,
        by_hand=[
            change(3, "lr", 0.05), change(6, "momentum", 0.5), change(10, "clip", "norm"),
            change(20, "clip_threshold", 0.1), change(24, "zero_grad", False),
            change(30, "zero_grad", True), change(33, "weight_decay", 0.1), change(40, "lr", None),
        ],
    ),
    "dropout, freezing, balanced": RunConfig(
        model_args={"dropout": 0.3}, steps=40, balance=True, stratify=True, test=0.1,
        normalize=True, optimizer="adamw", lr=1e-3,
        by_hand=[
            change(5, "eval_modules", ["Dropout"]), change(12, "frozen", ["head"]),
            change(20, "eval_modules", []), change(30, "frozen", []),
        ],
    ),
    "schedules exchanged": RunConfig(
        epochs=2, lr=0.05,
        by_hand=[
            change(5, "schedule", {"name": "one_cycle"}), change(15, "lr", 0.01),
            change(20, "schedule", {"name": "exponential", "gamma": 0.9, "unit": "step"}),
            change(25, "accumulate", 2),
        ],
    ),
    "augmented": RunConfig(
        model="lenet", steps=20, normalize=True,
        augment=[{"name": "RandomAffine", "degrees": 10}, "RandomHorizontalFlip"],
    ),
    "half precision and groups": RunConfig(
        steps=20, precision="fp16", controls=Controls(clip="norm"), init={"Linear": "orthogonal"},
        param_groups=[{"modules": ["head"], "lr": 0.01}],
        by_hand=[change(9, "lr", 0.02), change(15, "stop")],
    ),
    "one group by hand": RunConfig(
        steps=30, optimizer="adamw", lr=1e-3, weight_decay=0.1,
        param_groups=[{"modules": ["head"], "lr": 0.01}],
        controls=Controls(schedule={"name": "cosine"}),
        by_hand=[
            change(4, "lr", 0.05) | {"target": "0/1"}, change(8, "lr", 0.002),
            change(12, "momentum", 0.5) | {"target": "0/1"},
            change(15, "lr", 0.004) | {"target": "0"},
            change(16, "weight_decay", 0.0) | {"target": "0/0"},
            change(20, "lr", None) | {"target": "0/1"},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_the_script_ends_with_the_same_weights(config: RunConfig, tmp_path: Path) -> None:
    path = run(config, tmp_path / "runs")
    text = assert_script_repeats(path, tmp_path / "out")
    assert "inspector" not in {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for name in node.names
    }


def test_a_schedule_nobody_touched_is_pytorchs_own(tmp_path: Path) -> None:
    config = RunConfig(steps=30, controls=Controls(schedule={"name": "warmup_cosine"}))
    path = run(config, tmp_path / "runs")
    assert "class Plan" not in assert_script_repeats(path, tmp_path / "out")


def test_own_model_and_table_come_along(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN, "utf-8")
    rows = [f"{i % 7},{(i * 3) % 11},{'even' if i % 2 else 'odd'}" for i in range(80)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,kind", *rows]), "utf-8")
    config = RunConfig(
        model=f"file:{tmp_path / 'net.py'}:Net", data=f"csv:{tmp_path / 'table.csv'}",
        data_args={"target": "kind"}, steps=12, batch_size=16, by_hand=[change(4, "lr", 0.3)],
    )  # fmt: skip
    path = run(config, tmp_path / "runs")
    export(inspector.open_run(path), "script", tmp_path / "out")
    (tmp_path / "net.py").unlink()  # the script has its own copy
    assert_same(execute(tmp_path / "out"), weights(path))


def test_the_configuration_repeats_what_was_done_by_hand(tmp_path: Path) -> None:
    first = run(CASES["schedules exchanged"], tmp_path / "runs")
    exported = export(inspector.open_run(first), "config", tmp_path / "run.json").path
    config = RunConfig.from_dict(json.loads(exported.read_text("utf-8")))
    assert [entry["control"] for entry in config.by_hand] == [
        "schedule", "lr", "schedule", "accumulate",
    ]  # fmt: skip
    assert_same(weights(run(config, tmp_path / "again")), weights(first))


def test_the_configuration_repeats_what_was_set_in_one_group(tmp_path: Path) -> None:
    first = run(CASES["one group by hand"], tmp_path / "runs")
    exported = export(inspector.open_run(first), "config", tmp_path / "run.json").path
    config = RunConfig.from_dict(json.loads(exported.read_text("utf-8")))
    assert [entry.get("target", "") for entry in config.by_hand] == [
        "0/1", "", "0/1", "", "0/0", "0/1",
    ]  # fmt: skip
    assert_same(weights(run(config, tmp_path / "again")), weights(first))


@pytest.mark.parametrize("entry", [{"step": 0, "control": "lr", "value": 1.0}, {"step": 1}, 3])
def test_a_change_that_is_none_is_refused(entry: Any) -> None:
    with pytest.raises(ConfigError, match="by_hand"):
        RunConfig(by_hand=[entry])


OPENED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features=2, num_classes=2):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_features, 8), nn.Sigmoid(), nn.Linear(8, 8))
        self.head = nn.Linear(8, num_classes)
        self.body.requires_grad_(False)
    def forward(self, x):
        return self.head(self.body(x))
"""


def test_remedies_that_change_weights_are_in_the_script(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OPENED, "utf-8")
    config = RunConfig(
        model=f"file:{tmp_path / 'net.py'}:Net", data="two_moons", epochs=3, torch_threads=1,
        controls=Controls(schedule={"name": "cosine"}, max_steps_per_s=40.0),
    )  # fmt: skip
    task = prepare(config, tmp_path / "runs", "run")
    assert not isinstance(task, str)
    remedies = [
        {"action": "reinitialize", "module": "body", "method": "xavier"},
        {"action": "unfreeze", "module": "body"},
    ]

    def order(watch: Any) -> None:
        with contextlib.closing(ControlWriter(watch.run_path)) as control:
            for value in remedies:
                control.send(Command(name="remedy", value=value))

    train_and_record(task, tmp_path / "runs", "run", order)
    text = assert_script_repeats(tmp_path / "runs" / "run", tmp_path / "out")
    assert 'reinitialize(model, [optimizer], "body", "xavier")' in text
    assert 'unfreeze(model, [optimizer], "body")' in text
    told = export(inspector.open_run(tmp_path / "runs" / "run"), "config", tmp_path / "run.json")
    assert any("does not repeat" in note and "reinitialize body" in note for note in told.notes)
