"""The learning rate finder with several optimizers and parameter groups."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from inspector.commands import Command
from inspector.errors import CommandError
from inspector.events import CommandApplied, CommandRefused, LrFound
from inspector.store.control import ControlWriter
from inspector.training.lr_finder import find_lr
from inspector.views.repair import tried

LOW, HIGH, STEPS = 1e-4, 1e-1, 20
LOSS = nn.MSELoss()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.head(self.body(x).tanh())
        assert isinstance(out, torch.Tensor)
        return out


def groups(model: Pair) -> list[torch.optim.Optimizer]:
    made: list[dict[str, Any]] = [
        {"params": [*model.body.parameters()]},
        {"params": [*model.head.parameters()], "lr": 0.03},
    ]
    return [torch.optim.SGD(made, lr=0.01, momentum=0.9)]


def optimizers(model: Pair) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD(model.body.parameters(), lr=torch.tensor(0.01)),
        torch.optim.Adam(model.head.parameters(), lr=0.002),
    ]


BATCH = (torch.linspace(-1, 1, 32).reshape(8, 4), torch.linspace(0, 1, 8)[:, None])


def by_hand(
    steps_with: Sequence[torch.optim.Optimizer], model: Pair, at: list[float]
) -> list[float]:
    """Losses of a plain loop whose groups' rates are ``at`` times the rising one."""
    losses: list[float] = []
    for number in range(STEPS):
        lr = LOW * (HIGH / LOW) ** (number / (STEPS - 1))
        rest = iter(at)
        for optimizer in steps_with:
            for group in optimizer.param_groups:
                group["lr"] = lr * next(rest)
        for parameter in model.parameters():
            parameter.grad = None
        loss = LOSS(model(BATCH[0]), BATCH[1])
        losses.append(loss.item())
        loss.backward()
        for optimizer in steps_with:
            optimizer.step()
    return losses


def found_by(
    model: Pair, moved: list[torch.optim.Optimizer], group: int | None = None
) -> list[float]:
    before = copy.deepcopy(model.state_dict())
    curve = find_lr(model, moved, LOSS, [BATCH], group=group, low=LOW, high=HIGH, steps=STEPS)
    assert all(torch.equal(before[key], now) for key, now in model.state_dict().items())
    return curve.losses


def test_groups_keep_their_ratios_while_the_rate_rises() -> None:
    model = Pair()
    twin = copy.deepcopy(model)
    assert found_by(model, groups(model)) == pytest.approx(by_hand(groups(twin), twin, [1.0, 3.0]))


def test_optimizers_keep_their_ratios_and_those_that_rest_learn_nothing() -> None:
    model = Pair()
    made, twins = optimizers(model), [copy.deepcopy(model) for _ in range(2)]
    both, alone = (optimizers(twin) for twin in twins)
    assert found_by(model, made) == pytest.approx(by_hand(both, twins[0], [1.0, 0.2]))
    assert found_by(model, made[1:]) == pytest.approx(by_hand(alone[1:], twins[1], [1.0]))


def test_one_group_is_tried_alone() -> None:
    model = Pair()
    twin = copy.deepcopy(model)
    (lone,) = groups(twin)
    del lone.param_groups[0]
    assert found_by(model, groups(model), 1) == pytest.approx(by_hand([lone], twin, [1.0]))


def test_what_is_suggested_for_one_optimizer_is_set_there_alone(tmp_path: Path) -> None:
    model = Pair()
    made = optimizers(model)
    watch = inspector.watch(model, made, run_dir=tmp_path, name="run", loss_fn=LOSS, every=1)
    control = ControlWriter(watch.run_path)

    def step() -> None:
        loss = LOSS(model(BATCH[0]), BATCH[1])
        watch.record(loss=loss)
        loss.backward()
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()

    def tell(command: Command) -> CommandApplied | CommandRefused:
        control.send(command)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            step()
            watch._recorder.writer.flush()
            with inspector.open_run(watch.run_path) as run:
                for stored in run.events():
                    if getattr(stored.event, "command_id", "") == command.id:
                        assert isinstance(stored.event, CommandApplied | CommandRefused)
                        return stored.event
        raise AssertionError(f"{command} was not answered")

    step()
    answer = tell(Command(name="lr_finder", value={"steps": 60}, target="1"))
    assert isinstance(answer, CommandApplied), answer
    assert answer.where == "head · Adam" and answer.effective > 0
    with inspector.open_run(watch.run_path) as run:
        document = run.document("lr_finder")
        (event,) = [s.event for s in run.events() if isinstance(s.event, LrFound)]
    assert document is not None and document["moved"] == ["head · Adam"]
    assert tried(document) == "Tried on head · Adam; everything else rested."
    assert event.text.startswith("Suggested learning rate of head · Adam: ")
    suggestion = document["suggestion"]
    tell(Command(name="set", control="lr", value=suggestion, target=document["target"]))
    assert [float(one.param_groups[0]["lr"]) for one in made] == pytest.approx([0.01, suggestion])

    refused = tell(Command(name="lr_finder", target="2"))
    assert "There is no optimizer 2; the last one is optimizer 1." in refused.text
    watch.close()
    control.close()


def test_what_rises_with_the_first_is_told() -> None:
    assert tried({"suggestion": 0.1}) == ""
    assert tried({"where": "", "moved": ["SGD"]}) == ""
    assert tried({"where": "", "moved": ["body", "head", "a", "b", "c"]}) == (
        "The rate is that of body; head, a, b and 1 more kept their ratio to it."
    )
    assert tried({"where": "gen", "moved": ["gen · group 0", "gen · group 1"]}) == (
        "The rate is that of gen · group 0; gen · group 1 kept its ratio to it. "
        "Other optimizers than gen rested."
    )


def test_only_what_has_a_rate_has_a_target() -> None:
    with pytest.raises(CommandError, match="and lr_finder have a target, but got '1' for rewind"):
        Command(name="rewind", target="1")
