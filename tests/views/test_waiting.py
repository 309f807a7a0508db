"""Waiting for data: how much of the time, what is said about it, and how a script measures it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import inspector
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views.waiting import advice, is_measured, waited

KEYS = (SeriesKey("data_seconds"), SeriesKey("step_time"))


def run_with(folder: Path, times: list[tuple[float, float]]) -> Run:
    """A run of steps, each with the seconds that it waited and took."""
    path = create_run(folder, "run", {"config": {}})
    writer = Writer(path)
    writer.append("scalar", 0, KEYS[:1], [5.0])  # the first step's time is not known
    for step, pair in enumerate(times, 1):
        writer.append("scalar", step, KEYS, list(pair))
    writer.close()
    return Run(path)


def test_the_share_is_that_of_the_last_hundred_steps(tmp_path: Path) -> None:
    with run_with(tmp_path, [(0.0, 1.0)] * 50 + [(0.3, 0.4)] * 60 + [(0.1, 0.4)] * 40) as run:
        wait = waited(run)
    assert wait is not None
    assert wait.steps == 100
    assert wait.seconds == pytest.approx((60 * 0.3 + 40 * 0.1) / 100)
    assert wait.share == pytest.approx((60 * 0.3 + 40 * 0.1) / (100 * 0.4))
    assert wait.dominates


def test_one_step_does_not_have_a_share(tmp_path: Path) -> None:
    with run_with(tmp_path, []) as run:
        assert waited(run) is None


def test_advice_is_about_the_loading_that_was_chosen(tmp_path: Path) -> None:
    with run_with(tmp_path, [(0.03, 0.04)] * 9) as run:
        wait = waited(run)
    assert wait is not None
    said = advice(wait, {"workers": 0, "pin_memory": False}, device="cuda:0")
    assert said.startswith("75% of the last 9 steps' time went into waiting for data: 30 ms a step")
    assert "workers: 2 or more" in said
    assert "cache" in said
    assert "pin_memory" in said
    assert "more than 2 workers" in advice(wait, {"workers": 2}, device="cpu")
    assert "pin_memory" not in advice(wait, {"workers": 2}, device="cpu")
    assert "num_workers=2" in advice(wait, {}, device="cpu")


class Slow:
    """Batches that take 20 ms each."""

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[torch.Tensor]:
        for row in range(12):
            time.sleep(0.02)
            yield torch.full((3, 4), row / 12)


@pytest.mark.parametrize("record", ["before the step", "after the step"])
def test_a_script_has_its_waiting_measured(tmp_path: Path, record: str) -> None:
    """Two batches a step: the step waits for both."""
    torch.manual_seed(0)
    model, twin = nn.Linear(4, 2), nn.Linear(4, 2)
    twin.load_state_dict(model.state_dict())
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (model, twin)]
    for place, inputs in enumerate(Slow(), 1):
        twin(inputs).square().mean().backward()
        if place % 2 == 0:
            optimizers[1].step()
            optimizers[1].zero_grad()
    with inspector.watch(model, optimizers[0], run_dir=tmp_path) as watch:
        batches = watch.batches(Slow())
        assert len(batches) == 12
        for place, inputs in enumerate(batches, 1):
            loss = model(inputs).square().mean()
            loss.backward()
            if place % 2 == 0:
                if record == "before the step":
                    watch.record(loss=loss)
                optimizers[0].step()
                optimizers[0].zero_grad()
                if record == "after the step":
                    watch.record(loss=loss)
    assert torch.equal(model.weight, twin.weight)
    with inspector.open_run(watch.run_path) as run:
        waits = run.series("data_seconds")
        assert waits.steps.tolist() == run.series("loss").steps.tolist() == list(range(6))
        assert (waits.values >= 0.04).all()
        assert (waits.values[1:] <= run.series("step_time").values).all()
        found = waited(run)
    assert found is not None
    assert found.seconds == pytest.approx(float(waits.values[1:].mean()), rel=1e-5)


def test_a_script_that_does_not_say_has_none(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path) as watch:
        for _ in range(3):
            watch.record(loss=(loss := model(torch.ones(3, 4)).square().mean()))
            loss.backward()
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        assert not is_measured(run)
        assert waited(run) is None
