"""capture_backward on a running loop: what is stored, what is waited for, what is refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from inspector.commands import Command
from inspector.errors import CommandError
from inspector.store.control import ControlWriter


class Trap(nn.Module):
    """Square root of what shrinks by one each step: the gradient is infinite when it is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.left = 40.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return torch.sqrt(self.scale * x * self.left).sum()


def train(
    folder: Path, model: nn.Module, value: dict[str, Any] | None, *, steps: int
) -> tuple[inspector.Run, list[torch.Tensor]]:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with inspector.watch(model, optimizer, run_dir=folder, name="loop") as watch:
        writer = ControlWriter(watch.run_path)
        sent = writer.send(Command(name="capture_backward", value=value))
        heard = watch._recorder._inbox.arrived.wait
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(torch.rand(4, 3) + 0.5)
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
            if step == 0:
                assert heard(10)
        writer.close()
        assert sent
    return inspector.open_run(folder / "loop"), [p.grad for p in model.parameters()]


def test_the_next_backward_pass_is_stored_with_a_module_check(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    total = nn.Sequential(model, Total())
    run, _ = train(tmp_path, total, {"module": "0.0"}, steps=8)
    with run:
        (stored,) = run.documents("backward")
        document = run.document("backward", stored[0])
        assert document is not None
        captured = [s.event for s in run.events() if s.event.kind == "backward_captured"]
    assert len(document["visits"]) == len(document["nodes"]) == captured[0].nodes
    assert document["module_check"]["agrees"]
    assert document["module_check"]["module"] == "0.0"
    owners = {node["module"] for node in document["nodes"]}
    assert {"0.0", "0.1", "0.2"} <= owners
    lines = [node["line"] for node in document["nodes"] if node["op"].startswith("Sum")]
    assert lines
    assert lines[0] > 0


class Total(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


def test_it_waits_for_the_first_step_that_is_not_finite(tmp_path: Path) -> None:
    run, _ = train(tmp_path, Trap(), {"when": "nonfinite"}, steps=42)
    with run:
        (stored,) = run.documents("backward")
        document = run.document("backward", stored[0])
    assert stored[0] == 39
    assert document is not None
    assert document["nonfinite"]


def test_a_loss_recorded_too_late_is_explained(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="late") as watch:
        with closing(ControlWriter(watch.run_path)) as writer:
            writer.send(Command(name="capture_backward"))
        for step in range(4):
            loss = model(torch.ones(2, 3)).sum()
            loss.backward()
            watch.record(loss=loss)
            optimizer.step()
            if step == 0:
                assert watch._recorder._inbox.arrived.wait(10)
    with inspector.open_run(tmp_path / "late") as run:
        document = run.document("backward")
    assert document is not None
    assert any("before loss.backward()" in note for note in document["notes"])


def test_an_unknown_module_is_answered_and_training_goes_on(tmp_path: Path) -> None:
    run, _ = train(tmp_path, Trap(), {"module": "nowhere"}, steps=6)
    with run:
        kinds = [stored.event.kind for stored in run.events()]
        assert run.documents("backward") == []
    assert "probe_failed" in kinds
    assert kinds[-1] == "run_finished"


@pytest.mark.parametrize("value", [3, {"when": "later"}, {"module": 1}, {"why": "x"}])
def test_a_wrong_value_is_refused(value: Any) -> None:
    with pytest.raises(CommandError, match="capture_backward takes"):
        Command(name="capture_backward", value=value)
