"""The learning rate finder leaves no trace and suggests what learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.commands import Command
from inspector.config import RunConfig
from inspector.errors import CommandError
from inspector.events import (
    LrFound,
)
from inspector.training.lr_finder import find_lr, loader_batches, steepest
from inspector.training.runner import prepare, train_and_record
from inspector.watching import Watch
from tests.faults.loop import Loop, bits


def test_the_finder_leaves_everything_as_it_was_bit_by_bit(tmp_path: Path) -> None:
    loop = Loop(tmp_path, nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(),
                                        nn.ReLU(), nn.Linear(16, 3)))  # fmt: skip
    loop.step(5)
    state = lambda: bits(  # noqa: E731
        [loop.model.state_dict(), loop.optimizer.state_dict(), torch.get_rng_state(),
         [p.grad for p in loop.model.parameters()]]
    )  # fmt: skip
    before = state()
    find_lr(loop.model, loop.optimizer, loop.loss_fn, [(loop.x, loop.y)], steps=40)
    assert state() == before
    loop.close().close()


def test_the_finder_suggests_a_rate_that_learns_and_stops_when_it_diverges(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.step(2)
    events = loop.tell("lr_finder", steps=100, low=1e-5, high=1000.0)
    (found,) = [event for event in events if isinstance(event, LrFound)]
    assert found.suggestion is not None and 1e-3 < found.suggestion < 5
    assert found.steps < 100 and ("four times" in found.note or "not finite" in found.note)
    with loop.close() as run:
        document = run.document("lr_finder")
    assert document is not None and len(document["lrs"]) == len(document["losses"]) == found.steps


def test_the_finder_takes_batches_of_any_kind_and_refuses_what_it_cannot_try() -> None:
    model = nn.Linear(3, 1)
    batch = {"x": torch.randn(8, 3), "y": torch.randn(8, 1)}

    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    optimizer = torch.optim.SGD(model.parameters())
    curve = find_lr(model, optimizer, loss_of, [batch], low=1e-4, high=10.0)
    assert curve.suggestion is not None and 1e-3 < curve.suggestion < 1
    with pytest.raises(CommandError, match="LBFGS evaluates the loss several times"):
        find_lr(model, torch.optim.LBFGS(model.parameters()), loss_of, [batch])


def test_batches_of_a_loader_may_be_of_any_kind() -> None:
    batch = ({"tokens": torch.ones(2)}, ["text"])
    assert next(iter(loader_batches([batch], torch.device("cpu")))) == batch


def test_the_finder_serves_a_training_step_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_features=64, num_classes=10):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_features, num_classes))\n"
        "def training_step(model, batch):\n"
        "    x, y = batch\n"
        "    return nn.functional.cross_entropy(model(x), y)\n"
    )
    config = RunConfig(model=f"file:{tmp_path}/mine.py:Net", steps=4, torch_threads=1)
    task = prepare(config, tmp_path / "runs", "run")
    assert not isinstance(task, str)
    paths = []

    def started(watch: Watch) -> None:
        paths.append(watch.run_path)
        watch._recorder._inbox.commands.append(Command(name="lr_finder", value={"steps": 3}))

    train_and_record(task, tmp_path / "runs", "run", started)
    with inspector.open_run(paths[0]) as run:
        events = [stored.event for stored in run.events()]
    assert [event.steps for event in events if isinstance(event, LrFound)] == [3]


def test_steepest_descent_of_a_known_curve() -> None:
    lrs = [10 ** (-5 + 0.1 * i) for i in range(60)]
    losses = [2.0 - 1.5 / (1 + 2.718281828 ** (-(i - 30) / 2)) for i in range(60)]
    found = steepest(lrs, losses)
    assert found is not None and abs(lrs.index(found) - 30) <= 1
    assert steepest(lrs, [1.0 + i for i in range(60)]) is None
    lucky = losses[:45] + [2.0, 1.9] + [0.1] * 13  # a fall after the loss has risen again
    assert steepest(lrs, lucky) == found
