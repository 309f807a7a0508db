"""What a finding says agrees with its numbers: limits, counts, names of modules."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import nn

import inspector
from inspector.diagnosis.finding import Evidence, Finding
from inspector.events import RunFinished
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer


def found(path: Path, code: str) -> Finding:
    with inspector.open_run(path) as run:
        return next(finding for finding in run.findings() if finding.code == code)


def trained(model: nn.Module, folder: Path, width: int, steps: int = 12) -> Path:
    torch.manual_seed(0)
    inputs, labels = torch.randn(64, width), torch.randint(2, (64,))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with inspector.watch(model, optimizer, run_dir=folder, every=1) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            watch.record(loss=loss)
            optimizer.step()
    return watch.run_path


def test_a_note_of_a_low_learning_rate_is_below_the_limits_it_names(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {"kind": "watched"})
    keys = (SeriesKey("loss"), SeriesKey("lr"), SeriesKey("total_update_ratio"))
    with closing(Writer(path)) as writer:
        for step in range(80):
            rate = 1e-3 * (1 - step / 100)  # a schedule lowers it
            writer.append("scalar", step, keys, np.array([2.3, rate, 2e-5], np.float32))
        writer.event(80, RunFinished())
        writer.heartbeat(80, "finished")
    finding = found(path, "lr_too_low")
    for evidence in finding.evidence:
        assert evidence.value is not None
        assert evidence.threshold is not None
        assert evidence.value < evidence.threshold
    assert finding.title.startswith("Weights move by 2e-5 of their size a step;")
    assert "(now 0.00021)" in finding.remedies[0].text


def test_all_frozen_parameters_are_counted_not_only_matrices(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model[:2].requires_grad_(False)
    title = found(trained(model, tmp_path, 6), "frozen_parameters").title
    assert title == "0.weight and 3 more parameters are frozen; fine if on purpose."


def test_a_module_that_is_called_by_a_number_is_called_a_module(tmp_path: Path) -> None:
    layers = [layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    finding = found(
        trained(nn.Sequential(*layers, nn.Linear(16, 2)), tmp_path, 16), "vanishing_gradient"
    )
    assert finding.title.startswith("The gradient of module 0 is ")


def test_numbers_of_evidence_are_written_as_in_the_charts() -> None:
    evidence = Evidence(statistic="ratio", value=1.13e-7, threshold=1e-7, side="below")
    assert evidence.text == "ratio = 1.13e-7 (limit 1e-7)"


def test_no_gradient_anywhere_is_not_put_down_to_a_long_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for step in range(80):
            if step == 40:
                for module in model[::2]:
                    nn.init.constant_(module.bias, -1e3)  # every unit dies
            optimizer.zero_grad()
            loss = (model(torch.randn(64, 6)) - torch.randn(64, 16)).square().mean()
            loss.backward()
            watch.record(loss=loss)
            optimizer.step()
    finding = found(watch.run_path, "vanishing_gradient")
    assert finding.title == "Gradients are practically zero everywhere."
    assert "all dead" in finding.explanation
    assert "sigmoid is at most" not in finding.explanation
