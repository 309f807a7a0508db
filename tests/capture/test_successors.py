"""A script that makes a new optimizer in the middle of training stays watched."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from zoo import mlp

import inspector
from inspector.commands import Command
from inspector.events import Notice, Origin
from inspector.store.reader import Run


class Loop:
    """An ordinary loop whose optimizer may be changed at any step; it notes what is true."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = mlp()
        self.norms: list[float] = []
        self.rates: list[float] = []

    def step(self, optimizer: Optimizer, watch: inspector.Watch | None = None) -> None:
        optimizer.zero_grad()
        loss = self.model(torch.randn(8, 6)).square().mean()
        if watch is not None:
            watch.record(loss=loss)
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norms.append(
            float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])))
        )
        self.rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    def state(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


def told(run: Run) -> list[str]:
    return [one.event.message for one in run.events() if isinstance(one.event, Notice)]


def norm_of(parameter: Any) -> float:
    return float(parameter.grad.norm())


def hooks() -> list[int]:
    return [len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)]


def change_of_mind(loop: Loop, watched: Callable[[Optimizer], Any]) -> None:
    """Warm-up by SGD, then Adam under the same name."""
    optimizer: Optimizer = SGD(loop.model.parameters(), lr=0.05, momentum=0.9)
    watch = watched(optimizer)
    for step in range(60):
        if step == 25:
            optimizer = Adam(loop.model.parameters(), lr=1e-3)
        loop.step(optimizer, watch)
    if watch is not None:
        watch.close()


@pytest.mark.parametrize("every", [1, 7, 10_000, 0])
def test_an_optimizer_in_the_place_of_the_watched_one_is_followed(
    tmp_path: Path, every: int
) -> None:
    before = hooks()
    bare, loop = Loop(), Loop()
    torch.manual_seed(7)
    change_of_mind(bare, lambda _: None)
    torch.manual_seed(7)
    watches: list[inspector.Watch] = []

    def watched(optimizer: Optimizer) -> inspector.Watch:
        options: Any = {"run_dir": tmp_path, "name": "run", "every": every}
        watches.append(inspector.watch(loop.model, optimizer, **options))
        return watches[0]

    change_of_mind(loop, watched)
    for mine, other in zip(bare.state(), loop.state(), strict=True):
        assert torch.equal(mine, other)
    assert hooks() == before
    run = Run(watches[0].run_path)
    assert list(run.series("loss").steps) == list(range(60))
    np.testing.assert_allclose(run.series("lr").values, bare.rates, rtol=1e-6)
    found = run.series("total_grad_norm")
    expected = np.array(bare.norms)[np.array(found.steps)]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)
    if every == 1:
        assert list(found.steps) == list(range(60))
    (message,) = told(run)
    assert "step 25" in message and "Adam" in message and "SGD" in message


def test_one_that_rests_while_another_steps_its_parameters_is_replaced(tmp_path: Path) -> None:
    loop = Loop()
    first, second = SGD(loop.model.parameters(), lr=0.05), Adam(loop.model.parameters(), lr=1e-3)
    with inspector.watch(loop.model, first, run_dir=tmp_path, name="run", every=1) as watch:
        for _ in range(20):
            loop.step(first, watch)
        for _ in range(30):
            loop.step(second, watch)
        kept = watch.step
        loop.step(first, watch)  # comes back: that is for the script to say
        for _ in range(20):
            loop.step(first, watch)
        assert watch.step == kept
    run = Run(watch.run_path)
    assert 40 <= kept <= 50
    assert list(run.series("total_grad_norm").steps) == list(range(kept))
    messages = told(run)
    assert len(messages) == 2
    assert "Adam" in messages[0] and f"{50 - kept} of" in messages[0]
    assert "SGD" in messages[1] and "watch(model, [first, second])" in messages[1]


def test_parameters_trained_by_an_optimizer_that_was_not_given_are_told_of(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp()
    head, body = model[-1].parameters(), model[0].parameters()
    first, second = SGD(head, lr=0.1), Adam(body, lr=1e-3)
    with inspector.watch(model, first, run_dir=tmp_path, name="run") as watch:
        for _ in range(12):
            model.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            first.step()
            second.step()
    assert watch.step == 12
    (message,) = told(Run(watch.run_path))
    assert "Adam" in message and "0.weight" in message and "[first, second]" in message


def test_other_models_and_wrapped_optimizers_are_no_concern(tmp_path: Path) -> None:
    class Outer(Optimizer):
        """Steps by one inside it, as sharpness-aware minimization does."""

        def __init__(self, inner: Optimizer) -> None:
            super().__init__(inner.param_groups, {})
            self.inner = inner

        @torch.no_grad()
        def step(self, _closure: Any = None) -> None:  # type: ignore[override]
            self.inner.step()
            self.inner.step()

    loop, other = Loop(), Loop(1)
    outer = Outer(SGD(loop.model.parameters(), lr=0.01))
    elsewhere = Adam(other.model.parameters(), lr=1e-3)
    with inspector.watch(loop.model, outer, run_dir=tmp_path, name="run") as watch:
        for _ in range(20):
            loop.step(outer, watch)
            for _ in range(10):
                other.step(elsewhere)
    assert watch.step == 20
    assert told(Run(watch.run_path)) == []


def test_controls_and_the_time_machine_go_with_it(tmp_path: Path) -> None:
    loop = Loop()
    optimizer: Optimizer = SGD(loop.model.parameters(), lr=0.05)
    with inspector.watch(loop.model, optimizer, run_dir=tmp_path, name="run", every=1) as watch:
        watch.apply(Command(name="set", control="on_nonfinite", value="skip"))
        loop.step(optimizer, watch)
        watch.apply(Command(name="set", control="lr", value=0.01))
        loop.step(optimizer, watch)
        optimizer = Adam(loop.model.parameters(), lr=1e-3)
        gc.collect()
        for _ in range(4):
            loop.step(optimizer, watch)
        assert watch.controls.lr is None  # what the script has said last
        watch.apply(Command(name="set", control="lr", value=5e-4))
        assert optimizer.param_groups[0]["lr"] == 5e-4
        loop.step(optimizer, watch)
        before = loop.state()
        optimizer.zero_grad()
        loss = (loop.model(torch.full((8, 6), torch.nan))).square().mean()
        watch.record(loss=loss)
        loss.backward()
        optimizer.step()
        for mine, other in zip(before, loop.state(), strict=True):
            assert torch.equal(mine, other)
    run = Run(watch.run_path)
    (origin,) = [one.event for one in run.events() if isinstance(one.event, Origin)]
    assert origin.held and origin.phase == "data"


def test_the_next_stage_may_train_other_parameters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp()
    norms = []
    optimizer: Optimizer = SGD(model[0].parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=1) as watch:
        for step in range(20):
            if step == 10:
                optimizer = Adam(nn.ModuleList(model[1:]).parameters(), lr=1e-2)
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            norms.append(norm_of(model[0].weight))
            optimizer.step()
    run = Run(watch.run_path)
    found = run.series("grad_norm", "0.weight")
    assert list(found.steps) == list(range(20))
    np.testing.assert_allclose(found.values, norms, rtol=1e-5)
    assert run.series("update_ratio", "4.weight").values[15] > 0
    assert run.series("update_ratio", "0.weight").values[15] == 0


def test_each_of_several_optimizers_has_its_own_successor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = nn.Linear(4, 4), nn.Linear(4, 4)
    both = nn.ModuleList(pair)
    optimizers: list[Optimizer] = [SGD(part.parameters(), lr=0.1) for part in pair]
    norms = []
    with inspector.watch(both, optimizers, run_dir=tmp_path, name="run", every=1) as watch:
        for step in range(40):
            if step in (10, 20):
                at = step == 10
                optimizers[at] = Adam(pair[at].parameters(), lr=2e-3)
            for at in (1, 0):
                optimizers[at].zero_grad()
                pair[at](torch.randn(3, 4)).square().sum().backward()
                optimizers[at].step()
            norms.append(norm_of(pair[1].weight))
    run = Run(watch.run_path)
    np.testing.assert_allclose(run.series("grad_norm", "1.weight").values, norms, rtol=1e-5)
    for series, first in (("lr", 20), ("lr/optimizer 1", 10)):
        expected = [0.1] * first + [2e-3] * (40 - first)
        np.testing.assert_allclose(run.series(series).values, expected, rtol=1e-6)
    messages = told(run)
    assert ["step 10" in messages[0], "step 20" in messages[1]] == [True, True]
