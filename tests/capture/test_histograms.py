"""Histograms against numpy, and on their own schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import inspector
from inspector.capture.histograms import BINS, HistogramBatch, HistogramSchedule


def landed(tensor: torch.Tensor, scale: float = 1.0, kind: str = "weight") -> tuple:  # type: ignore[type-arg]
    batch = HistogramBatch()
    batch.add(kind, "x", tensor)
    batch.depart()
    (found,) = batch.land(scale)
    return found.low, found.high, found.counts


def test_counts_are_those_of_numpy() -> None:
    torch.manual_seed(0)
    x = torch.randn(3000)
    low, high, counts = landed(x)
    right, edges = np.histogram(x.double().numpy(), BINS)
    assert (low, high) == (edges[0], edges[-1])
    assert abs(np.array(counts) - right).sum() <= 4  # values on an edge, up to rounding
    assert sum(counts) == 3000


def test_what_is_not_finite_is_left_out() -> None:
    x = torch.tensor([0.0, 1.0, float("nan"), float("inf"), -float("inf")])
    assert landed(x)[:2] == (0.0, 1.0)
    assert sum(landed(x)[2]) == 2
    assert sum(landed(torch.full((3,), float("nan")))[2]) == 0
    assert sum(landed(torch.ones(5))[2]) == 5


def test_gradients_are_unscaled() -> None:
    assert landed(torch.tensor([0.0, 8.0]), 4.0, "gradient")[:2] == (0.0, 2.0)


def test_every_subject_has_its_turn() -> None:
    schedule = HistogramSchedule()
    seen: set[int] = set()
    for _ in range(4):
        seen |= set(schedule.pick(500))
        schedule.ended(0.0)
    assert seen == set(range(500))


def test_a_run_holds_histograms(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="a", every=1) as watch:
        for _ in range(60):
            loss = model(torch.randn(8, 6)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.record(loss=loss)
    with inspector.open_run(tmp_path / "a") as run:
        for kind, subject, size in (
            ("weight", "0.weight", 60), ("gradient", "2.bias", 3), ("activation", "1", 80),
        ):  # fmt: skip
            found = run.histograms(kind, subject)
            assert found and sum(found[0].counts) == size
