"""Every run has an autograd graph to look at, though nobody asked for one while it went on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import inspector
from inspector.config import RunConfig
from inspector.store.reader import Run
from tests.app.in_process import open_app, read, turn_to
from tests.runs import train


def watched(folder: Path, *, steps: int = 8, record: str = "before backward") -> Run:
    """A script of some steps; ``record``: when, or in which form, it gives its loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=folder, name="script") as watch:
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(torch.full((2, 4), float(step))).square().mean()
            if record == "before backward":
                watch.record(loss=loss)
            loss.backward()
            if record == "as a number":
                watch.record(loss=loss.item())
            optimizer.step()
            if record == "after the step":
                watch.record(loss=loss)
    assert not any(module._forward_pre_hooks for module in model.modules())
    return Run(folder / "script")


def test_a_run_that_has_ended_shows_the_graph_of_its_second_step(tmp_path: Path) -> None:
    with train(RunConfig(model="mlp", data="digits", steps=4), tmp_path, "ours") as run:
        document = run.document("graph", 1)
        assert not any(stored.event.kind == "graph_captured" for stored in run.events())
    assert document is not None
    owners = {node["module"] for node in document["nodes"]}
    assert {"hidden.1.0", "head"} <= owners
    assert all(n["grad_norm"] > 0 for n in document["nodes"] if n["parameter"] == "head.weight")
    app = turn_to(open_app(tmp_path, run="ours"), "graph")
    assert "Step 1, which every run captures by itself" in read(app, "caption")
    assert "No graph was captured" not in read(app)


def test_so_has_a_watched_script(tmp_path: Path) -> None:
    with watched(tmp_path) as run:
        assert [step for step, _ in run.documents("graph")] == [1]


def test_a_loss_that_is_recorded_late_is_that_of_a_tagged_step(tmp_path: Path) -> None:
    with watched(tmp_path, record="after the step") as run:
        (found,) = [run.document("graph", step) for step, _ in run.documents("graph")]
    assert found is not None
    assert {"0", "2"} <= {node["module"] for node in found["nodes"]}


@pytest.mark.parametrize("record", ["never", "as a number"])
def test_without_a_loss_the_wait_is_given_up(tmp_path: Path, record: str) -> None:
    with watched(tmp_path, record=record) as run:
        assert list(run.documents("graph")) == []


def test_one_that_is_asked_for_meanwhile_is_kept(tmp_path: Path) -> None:
    """It is taken with all that belongs to it, and told."""
    config = RunConfig(model="mlp", data="digits", steps=6)
    every = config.controls.with_value("graph_every", 3)
    asked = RunConfig(model="mlp", data="digits", steps=6, controls=every)
    with train(asked, tmp_path, "both") as run:
        steps = [step for step, _ in run.documents("graph")]
        told = [s.step for s in run.events() if s.event.kind == "graph_captured"]
    assert steps == [1, 3]
    assert len(told) == 1
