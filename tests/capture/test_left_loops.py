"""Loops with several optimizers, several groups or a GradScaler are left to the extension, too.

The oracle is the same loop with every step attended by Python: nothing that is recorded, told or
trained may differ.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

import inspector
from inspector.capture import native
from inspector.capture.stretches import Stretches
from inspector.store.reader import Run

STEPS = 160
TIMED = ("step_time", "memory", "samples_per_s")
pytestmark = pytest.mark.skipif(native.load() is None, reason="no C compiler here")


class Pair(nn.Module):
    """Two parts, as of a GAN; never called as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))


def settings(kind: str, model: Pair) -> list[Optimizer]:
    first, second = model.discriminator.parameters(), model.generator.parameters()
    if "groups" in kind:
        halves = [{"params": first}, {"params": second, "lr": 3e-3, "weight_decay": 0.1}]
        return [Adam(halves, lr=1e-3)]
    return [Adam(first, lr=1e-3, betas=(0.5, 0.9)), Adam(second, lr=2e-3)]


def train(
    folder: Path, kind: str, *, every: int, after: bool, seed: int
) -> tuple[Run, dict[str, Any], int]:
    """The run, what was trained, and how many steps were left to the extension."""
    torch.manual_seed(seed)
    model = Pair()
    optimizers = settings(kind, model)
    schedules = [LambdaLR(one, _rates(len(one.param_groups))) for one in optimizers]
    scaler = None
    if "scaler" in kind:
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=9)
    left = 0
    with inspector.watch(model, optimizers, run_dir=folder, name="run", every=every) as watch:
        pulse = watch._recorder.observer.clock.pulse
        for step in range(STEPS):
            factor = 1e38 if scaler and step % 23 == 11 else 1.0  # overflows by the scale alone
            if "spoilt" in kind and step == 70:
                factor = float("nan")
            losses = {}
            for optimizer in reversed(optimizers):  # the first one's is the step's end
                optimizer.zero_grad(set_to_none=step % 3 != 0)
                loss = model.discriminator(model.generator(torch.randn(8, 4))).square().mean()
                loss = loss * factor
                name = f"loss_{len(losses)}" if optimizer is not optimizers[0] else "loss"
                losses[name] = loss.detach()
                if not after and name == "loss":
                    watch.record(**losses, double=2.0 * step)
                if scaler is None:
                    loss.backward()
                    optimizer.step()
                else:
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
            if scaler is not None:
                scaler.update()
            if after:
                watch.record(**losses, double=2.0 * step)
            for schedule in schedules:
                schedule.step()
            left += pulse.open
    state = {f"model/{name}": value for name, value in model.state_dict().items()}
    for at, optimizer in enumerate(optimizers):
        for key, entry in optimizer.state_dict()["state"].items():
            state.update({f"{at}/{key}/{name}": value for name, value in entry.items()})
    return Run(watch.run_path), state, left


def _rates(groups: int) -> list[Any]:
    return [lambda step, at=at: 0.5 ** (step // (5 + at)) for at in range(groups)]


def _recorded(run: Run) -> set[tuple[str, str]]:
    """Quantities and subjects, but for those that no two runs have in common."""
    found = {(key.quantity, key.subject) for key in run.keys()}  # noqa: SIM118
    return {key for key in found if key[0] not in TIMED and "overhead" not in key[0]}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("after", [False, True], ids=["recorded before", "recorded after"])
@pytest.mark.parametrize("every", [10_000, 13])
@pytest.mark.parametrize(
    "kind",
    ["two", "groups", "two scaler", "groups scaler", "spoilt", "spoilt groups", "spoilt scaler"],
)
def test_as_if_each_step_was_attended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, every: int, after: bool
) -> None:
    seed = sum(map(ord, kind)) + every
    left = train(tmp_path / "left", kind, every=every, after=after, seed=seed)
    monkeypatch.setattr(Stretches, "enter", lambda *_args, **_kwargs: None)
    attended = train(tmp_path / "attended", kind, every=every, after=after, seed=seed)
    assert attended[2] == 0 and left[2] > STEPS // 2
    assert left[1].keys() == attended[1].keys()
    for name, value in left[1].items():
        np.testing.assert_array_equal(value, attended[1][name], err_msg=name)
    mine, other = left[0], attended[0]
    recorded = [_recorded(run) for run in (mine, other)]
    assert recorded[0] == recorded[1]
    for quantity, subject in recorded[1]:
        one, two = mine.series(quantity, subject), other.series(quantity, subject)
        assert list(one.steps) == list(two.steps), quantity
        np.testing.assert_array_equal(one.values, two.values, err_msg=quantity)
    assert ("grad_scale", "") in recorded[0] or "scaler" not in kind
    told = [
        [(s.step, type(s.event).__name__) for s in run.events() if "Finished" not in str(s.event)]
        for run in (mine, other)
    ]
    for pair in itertools.zip_longest(*told):
        assert pair[0] == pair[1]
