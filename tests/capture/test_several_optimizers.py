"""Steering and recording several optimizers, and one with several parameter groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, StepLR

import inspector
from inspector.commands import Command
from inspector.errors import CommandError
from inspector.events import CommandApplied, CommandRefused
from inspector.store.reader import Run
from tests.runs import only


class Pair(nn.Module):
    """Two parts, as of a GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.discriminator = nn.Linear(4, 1)


def gan() -> tuple[Pair, list[Optimizer]]:
    torch.manual_seed(0)
    model = Pair()
    return model, [
        Adam(model.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999)),
        Adam(model.generator.parameters(), lr=1e-4, betas=(0.6, 0.999)),
    ]


def grouped() -> tuple[Pair, list[Optimizer]]:
    model = Pair()
    rest = [p for name, p in model.generator.named_parameters() if "bias" in name]
    groups = [
        {"params": list(model.discriminator.parameters()), "weight_decay": 0.1},
        {"params": [model.generator[0].weight, model.generator[2].weight], "lr": 0.02},
        {"params": rest, "lr": 0.03, "weight_decay": 0.0},
    ]
    return model, [SGD(groups, lr=0.01, momentum=0.9)]


Build = Callable[[], tuple[Pair, list[Optimizer]]]


def steered(
    folder: Path,
    build: Build,
    commands: dict[int, list[Command]],
    *,
    steps: int = 6,
    every: int = 0,
    schedule: Callable[[Sequence[Optimizer]], Sequence[Any]] = lambda _: (),
) -> tuple[Run, list[list[list[float]]]]:
    """The run, and the rates of every optimizer's groups after each step."""
    model, optimizers = build()
    seen = []
    schedulers = schedule(optimizers)
    with inspector.watch(model, optimizers, run_dir=folder, name="run", every=every) as watch:
        for step in range(steps):
            for command in commands.get(step, []):
                watch.apply(command)
            loss = model.discriminator(model.generator(torch.randn(8, 4))).square().mean()
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            watch.record(loss=loss)
            for optimizer in reversed(optimizers):  # the first one's is the step's end
                optimizer.step()
            seen.append([[float(g["lr"]) for g in one.param_groups] for one in optimizers])
            for scheduler in schedulers:
                scheduler.step()
        path = watch.run_path
    return inspector.open_run(path), seen


def put(value: float | None, target: str = "", control: str = "lr") -> Command:
    return Command(name="set", control=control, value=value, target=target)


def test_one_optimizer_is_addressed_and_the_other_is_left_alone(tmp_path: Path) -> None:
    run, seen = steered(tmp_path, gan, {3: [put(1e-3, "1")]})
    assert seen[2:4] == [[[2e-4], [1e-4]], [[2e-4], [1e-3]]]
    (answer,) = only(run, CommandApplied)
    assert (answer.target, answer.effective) == ("1", 1e-3)
    assert answer.text == ("lr of generator · Adam = 0.001 (generator · Adam 0.0001 → 0.001)")
    assert run.series("lr").values.tolist() == pytest.approx([2e-4] * 6)
    other = run.series("lr/optimizer 1")
    assert other.steps.tolist() == list(range(6))
    assert other.values.tolist() == pytest.approx([1e-4] * 3 + [1e-3] * 3)


def test_all_keep_their_ratios_and_the_event_says_so(tmp_path: Path) -> None:
    run, seen = steered(tmp_path, gan, {2: [put(1e-3)], 4: [put(None)]})
    assert seen[3] == [[1e-3], [pytest.approx(5e-4)]]
    assert seen[5] == [[2e-4], [1e-4]]
    there, back = only(run, CommandApplied)
    assert there.note == (
        "discriminator · Adam 0.0002 → 0.001, generator · Adam 0.0001 → 0.0005; each × 5, so "
        "ratios are kept"
    )
    assert (there.effective, back.effective) == (1e-3, 2e-4)


def test_a_group_is_addressed_and_all_groups_are_recorded(tmp_path: Path) -> None:
    run, seen = steered(
        tmp_path, grouped,
        {2: [put(0.5, "0/1")], 3: [put(0.1, "0"), put(0.3, "0/2", "weight_decay")],
         4: [put(None, "0/1"), put(0.7, "0/0", "momentum")]},
    )  # fmt: skip
    assert seen[1] == [[0.01, 0.02, 0.03]]
    assert seen[2] == [[0.01, 0.5, 0.03]]
    assert seen[3][0] == pytest.approx([0.1, 5, 0.3])
    assert seen[4][0] == pytest.approx([0.1, 0.02, 0.3])
    assert run.series("lr/group 1").values == pytest.approx([one[0][1] for one in seen])
    assert run.series("lr/group 2").values == pytest.approx([one[0][2] for one in seen])
    assert run.series("weight_decay/group 2").values[-1] == pytest.approx(0.3)
    assert run.series("weight_decay").values.tolist() == pytest.approx([0.1] * 6)
    assert run.series("momentum").values[-1] == pytest.approx(0.7)
    assert run.series("momentum/group 1").values[-1] == pytest.approx(0.9)
    first, whole, *_ = only(run, CommandApplied)
    assert (first.where, first.note) == ("group 1", "group 1 0.02 → 0.5")
    assert "each × 10, so ratios are kept" in whole.note


def test_without_matrices_a_group_is_called_so_and_modules_name_the_rest(tmp_path: Path) -> None:
    def decay() -> tuple[Pair, list[Optimizer]]:
        model = Pair()
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        return model, [SGD([{"params": matrices}, {"params": vectors}], lr=0.1)]

    run, _ = steered(tmp_path, decay, {})
    document = run.document("optimizers")
    assert document is not None
    titles = [group["title"] for group in document["optimizers"][0]["groups"]]
    assert titles == ["group 0 · weights", "group 1 · biases, norms"]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    def mixed() -> tuple[Pair, list[Optimizer]]:
        model = Pair()
        return model, [
            SGD(model.generator.parameters(), lr=0.1, momentum=0.9),
            Adagrad(model.discriminator.parameters(), lr=0.1),
        ]

    asked = [put(0.1, "2"), put(0.1, "1/3"), put(0.5, "1", "momentum"), put(0.5, "", "momentum")]
    run, _ = steered(tmp_path, mixed, {1: asked})
    assert [event.reason for event in only(run, CommandRefused)] == [
        "There is no optimizer 2; the last one is optimizer 1.",
        "Optimizer 1 has no parameter group 3; its last one is group 0.",
        "Adagrad has no momentum.",
    ]
    (answer,) = only(run, CommandApplied)
    assert answer.note == "generator · SGD 0.9 → 0.5; Adagrad has no momentum."


def test_a_scheduler_goes_on_from_the_addressed_group_only(tmp_path: Path) -> None:
    def schedules(optimizers: Sequence[Optimizer]) -> Sequence[Any]:
        return [StepLR(optimizers[0], 1, 0.5), LambdaLR(optimizers[1], lambda step: 1 / (1 + step))]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schedulers that are stepped before an optimizer
        _, alone = steered(tmp_path, gan, {}, schedule=schedules)
        run, seen = steered(tmp_path, gan, {2: [put(0.3, "1")]}, schedule=schedules)
    (answer,) = only(run, CommandApplied)
    assert answer.note.endswith("LambdaLR goes on from this value")
    assert [one[0] for one in seen] == [one[0] for one in alone]
    assert [one[1][0] for one in seen[2:]] == pytest.approx([0.3, 0.3 * 3 / 4, 0.3 * 3 / 5, 0.15])


def test_a_scheduler_of_groups_keeps_the_others(tmp_path: Path) -> None:
    run, seen = steered(
        tmp_path, grouped, {2: [put(0.8, "0/2")]}, schedule=lambda all_: [StepLR(all_[0], 1, 0.5)]
    )
    assert [one[0][2] for one in seen[2:]] == pytest.approx([0.8, 0.4, 0.2, 0.1])
    assert [one[0][0] for one in seen] == pytest.approx([0.01 / 2**step for step in range(6)])
    assert run.series("lr/group 2").values == pytest.approx([one[0][2] for one in seen])


def test_old_commands_have_no_target_and_nonsense_is_refused() -> None:
    old = '{"name": "set", "control": "lr", "value": 0.1, "id": "a"}'
    assert Command.from_json(old) == Command(name="set", control="lr", value=0.1, id="a")
    new = put(0.1, "1/0")
    assert Command.from_json(new.to_json()) == new
    for target in ("x", "1/", "/1", "-1", "1/2/3"):
        with pytest.raises(CommandError, match="target must be"):
            put(0.1, target)
    with pytest.raises(CommandError, match="have a target"):
        Command(name="set", control="clip", value="norm", target="1")


def test_many_groups_are_read_in_full_steps_only(tmp_path: Path) -> None:
    def many() -> tuple[Pair, list[Optimizer]]:
        model = Pair()
        model.more = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(20)])
        groups = [{"params": [p]} for p in model.parameters()]
        return model, [SGD(groups, lr=0.1)]

    run, _ = steered(tmp_path, many, {}, steps=30, every=10)
    assert len(run.series("lr")) == 30
    assert run.series("lr/group 20").steps.tolist() == [0, 10, 20]
