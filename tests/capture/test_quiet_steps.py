"""Quiet steps are written down in C: nothing that a script records may be lost or misplaced."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import inspector
from inspector.capture import native
from inspector.capture.schedule import Schedule
from inspector.events import NonFinite

STEPS = 90


@pytest.mark.parametrize("after_step", [False, True])
@pytest.mark.parametrize("numbers", ["floats", "float32", "float64", "bfloat16", "arrays"])
def test_every_number_is_in_its_step(tmp_path: Path, after_step: bool, numbers: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    losses, rates, stretches = [], [], 0
    dtype = torch.bfloat16 if numbers == "bfloat16" else torch.float32
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="quiet", every=10_000) as watch:
        pulse = watch._recorder.observer.clock.pulse
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 6)).square().mean()
            squared: object = float(step * step)
            if "float" in numbers and numbers != "floats":
                squared = -torch.tensor(-float(step * step), dtype=getattr(torch, numbers))
            elif numbers == "arrays":
                squared = torch.tensor(float(step * step), dtype=torch.float64).numpy()[()]
            epoch = {"epoch": step // 10} if step % 10 == 0 else {}
            if not after_step:
                watch.record(loss=loss, squared=squared, **epoch)  # type: ignore[arg-type]
            loss.backward()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if after_step:
                watch.record(loss=loss, squared=squared, **epoch)  # type: ignore[arg-type]
            losses.append(loss.item())
            schedule.step()
            stretches += pulse.open
            assert watch.step == step + 1
    if native.load() is not None and numbers != "arrays":
        assert stretches > STEPS // 4
    with inspector.open_run(tmp_path / "quiet") as run:
        whole = list(range(STEPS))
        for name, right in (
            ("loss", losses),
            ("lr", rates),
            ("squared", [float(torch.tensor(float(step * step), dtype=dtype)) for step in whole]),
            ("momentum", [0.9] * STEPS),
            ("backward_passes", [1.0] * STEPS),
            ("epoch", [float(step // 10) for step in whole]),
        ):
            series = run.series(name)
            assert list(series.steps) == whole, name
            assert list(series.values) == pytest.approx(right, rel=1e-5), name
        assert list(run.series("overhead").steps) == whole[1:]


def test_what_some_steps_amend_is_not_lost_in_the_others(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=10_000) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).mean().backward()
            watch.record(loss=float(step))
            if step % 3:
                watch.amend(loss=step + 0.5, lr=step + 0.25)
            optimizer.step()
    with inspector.open_run(tmp_path / "run") as run:
        for name, usual in (("loss", None), ("lr", 0.1)):
            series = run.series(name)
            added = 0.5 if name == "loss" else 0.25
            expected = [
                step + added if step % 3 else (step if usual is None else usual)
                for step in range(STEPS)
            ]
            assert list(series.steps) == list(range(STEPS)), name
            assert list(series.values) == pytest.approx(expected), name


def test_the_spacing_does_not_waver_on_a_busy_machine() -> None:
    schedule, rng, changes = Schedule(), np.random.default_rng(0), 0
    for step in range(20_000):
        full = schedule.is_full(step)
        busy = 1 + rng.pareto(2.5)  # others take the machine for a while, now and then
        schedule.note(full, (1.4e-3 if full else 1.0e-3) * busy, 3.5e-4 * busy if full else 1e-5)
        changes += full and schedule.review() is not None
    assert 1 <= changes <= 20
    assert 10 <= schedule.spacing <= 50


def test_a_loss_that_is_not_finite_is_told_in_its_step(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="nan", every=10_000) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = model(torch.randn(3, 4)).square().mean()
            watch.record(loss=loss * math.nan if step == 37 else loss)
            loss.backward()
            optimizer.step()
    with inspector.open_run(tmp_path / "nan") as run:
        told = [e.step for e in run.events() if isinstance(e.event, NonFinite)]
        assert told[:1] == [37]
        assert list(run.series("loss").steps) == list(range(STEPS))


def test_controls_reach_a_stretch(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="held", every=10_000) as watch:
        observer = watch._recorder.observer
        for step in range(60):
            if step == 40:
                observer.zero_grad = False
            if step == 45:
                observer.zero_grad = True
                observer.set_every(5)
            optimizer.zero_grad()
            loss = model(torch.randn(3, 4)).square().mean()
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
    with inspector.open_run(tmp_path / "held") as run:
        assert list(run.series("grad_norm", "weight").steps) == [0, 45, 50, 55]
        passes = dict(
            zip(
                run.series("backward_passes").steps,
                run.series("backward_passes").values,
                strict=True,
            )
        )
        assert passes[39] == 1
        assert passes[44] == 6


@pytest.mark.parametrize("every", [1, 3, 10_000])
def test_more_numbers_after_a_step_do_not_move_its_loss(tmp_path: Path, every: int) -> None:
    """Losses come after their steps; at the end of each epoch of ten steps there is one more."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=every) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).mean().backward()
            optimizer.step()
            watch.record(loss=float(step), epoch=step // 10)
            if step % 10 == 9:
                watch.record(accuracy=step / 100)
    with inspector.open_run(tmp_path / "run") as run:
        for name, values in (
            ("loss", [float(step) for step in range(STEPS)]),
            ("epoch", [float(step // 10) for step in range(STEPS)]),
        ):
            series = run.series(name)
            assert list(series.steps)[:STEPS] == list(range(STEPS)), name
            assert list(series.values)[:STEPS] == values, name
        told = run.series("accuracy")
        assert list(told.values) == pytest.approx([step / 100 for step in range(9, STEPS, 10)])
        assert all(int(at) - 10 * k in (9, 10) for k, at in enumerate(told.steps))


@pytest.mark.parametrize("every", [1, 10_000])
def test_an_epoch_begins_with_its_first_step(tmp_path: Path, every: int) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=every) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 3)).mean()
            strange = {"odd": np.float64(step)} if step % 7 == 0 else {}  # not for the extension
            watch.record(loss=loss, **strange, **({"epoch": step // 7} if step % 7 == 0 else {}))
            loss.backward()
            optimizer.step()
    with inspector.open_run(tmp_path / "run") as run:
        assert list(run.series("epoch").values) == [float(step // 7) for step in range(STEPS)]


def test_a_scalar_named_like_ours_does_not_mislead_the_schedule(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=30) as watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 3)).mean()
            watch.record(loss=loss, step_time=3600.0, overhead=0.9)
            loss.backward()
            optimizer.step()
        bare = watch._recorder.observer.schedule.bare
    assert bare is not None and bare < 60
