"""Two optimizers: a spell of one model is told once, whatever the other one's steps are like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.commands import Controls
from inspector.events import NonFinite, Origin
from inspector.timemachine.late import LateFlags
from inspector.timemachine.spells import Spells


class Root(nn.Module):
    """Its slope is infinite while it is bad."""

    def __init__(self, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.bad = nn.Linear(*sizes), False

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.sqrt(y * 0.0) + 1.0 if self.bad else y


def train(
    path: Path, bad: dict[str, set[int]], *, policy: str, generator_first: bool, late: bool = False
) -> tuple[list[tuple[int, str | None]], list[Any]]:
    """Step and module of what was told, and all events."""
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"generator": Root((4, 4)), "critic": Root((4, 1))})
    of = {name: torch.optim.Adam(part.parameters()) for name, part in model.items()}
    names = ["generator", "critic"] if generator_first else ["critic", "generator"]
    with inspector.watch(
        model, [of[name] for name in names], run_dir=path, name="run",
        controls=Controls(on_nonfinite=policy),  # type: ignore[arg-type]
    ) as watch:  # fmt: skip
        machine = watch.timemachine
        if late:  # as on CUDA
            machine._late = OneStepLate()
            for check in machine._check:
                start = check.start
                check.start = lambda g, start=start: torch.tensor(float(bool(start(g))))  # type: ignore[method-assign, misc]
            machine._all_finite = lambda _: None
        for step in range(24):
            for name in names[1:] + names[:1]:  # the first one's is the step's end
                model[name].bad = step in bad[name]
                of[name].zero_grad()
                made = model["generator"](torch.randn(8, 4))
                if name == "critic":
                    made = torch.randn(8, 4)
                loss = model["critic"](made).square().mean()
                watch.record(loss=loss)
                loss.backward()
                of[name].step()
                model[name].bad = False
    with inspector.open_run(path / "run") as run:
        events = list(run.events())
    told = [(e.step, e.event.module) for e in events if isinstance(e.event, NonFinite)]
    return told, events


class OneStepLate(LateFlags):
    def arrived(self) -> Any:
        newest = self._waiting.pop()
        found = list(super().arrived())
        self._waiting.append(newest)
        return iter(found)


@pytest.mark.parametrize("generator_first", [False, True])
@pytest.mark.parametrize("policy", ["skip", "continue"])
def test_a_spell_of_the_generator_is_told_once(
    tmp_path: Path, policy: str, generator_first: bool
) -> None:
    bad = {"generator": {*range(6, 12), *range(18, 21)}, "critic": set[int]()}
    told, events = train(tmp_path, bad, policy=policy, generator_first=generator_first)
    # Where updates are made all the same, the weights are NaN from then on.
    expected = [(6, "generator"), (18, "generator")][: 2 if policy == "skip" else 1]
    assert told == expected
    assert [e.step for e in events if isinstance(e.event, Origin)] == [s for s, _ in expected]


def test_what_is_bad_in_the_other_model_too_is_told(tmp_path: Path) -> None:
    bad = {"generator": set(range(6, 16)), "critic": set(range(9, 12)) | {20}}
    told, _ = train(tmp_path, bad, policy="skip", generator_first=False)
    assert told == [(6, "generator"), (9, "critic"), (20, "critic")]


def test_answers_that_come_late_belong_to_their_own_optimizer(tmp_path: Path) -> None:
    bad = {"generator": {6, 8, 9, 10}, "critic": set[int]()}
    told, _ = train(tmp_path, bad, policy="continue", generator_first=False, late=True)
    assert [step for step, _ in told] == [6]


def test_one_loss_for_both_is_told_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Root((4, 4)), nn.Linear(4, 1))
    both = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model]
    with inspector.watch(
        model, both, run_dir=tmp_path, name="run", controls=Controls(on_nonfinite="pause")
    ) as watch:
        for step in range(8):
            model[1].bad = step == 5
            for optimizer in both:
                optimizer.zero_grad()
            model(torch.randn(8, 4)).mean().backward()
            for optimizer in both[1:]:
                optimizer.step()
            if step == 5:
                watch.stop()  # so that the pause does not last
            both[0].step()
    with inspector.open_run(tmp_path / "run") as run:
        kinds = [type(e.event) for e in run.events()]
    assert [kinds.count(kind) for kind in (NonFinite, Origin)] == [1, 1]


def test_a_spell_of_an_optimizer_that_never_steps_again_is_over_some_day() -> None:
    spells = Spells()
    spells.bad(3, 1, 1)
    spells.well(100, 0)
    assert spells.known(1, spreads=False) and spells.known(0, spreads=True)
    spells.well(300, 0)
    assert not spells.last
