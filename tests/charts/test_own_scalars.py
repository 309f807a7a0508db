"""Scalars of a script's own on the Live page: all of them, and those that come later."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import inspector
from inspector.charts.boards import overview


def test_what_a_script_records_gets_charts(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="own") as watch:
        for step in range(4):
            loss = model(torch.ones(3, 2)).square().mean()
            watch.record(loss=loss, reward=float(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        watch.validation(val_loss=0.5, val_f1=0.25)
        watch.validation(test_loss=0.75)  # the same step
        watch.validation(test_f1=0.125)
    with inspector.open_run(watch.run_path) as run:
        charts = {chart.title: chart for chart in overview(run.keys())}
        values = {
            line.quantity: run.series(line.quantity).values[-1:].tolist()
            for title in ("Loss", "reward", "f1")
            for line in charts[title].lines  # type: ignore[union-attr]
        }
    assert values.pop("loss")
    assert values == {"val_loss": [0.5], "test_loss": [0.75], "reward": [3.0], "val_f1": [0.25],
                      "test_f1": [0.125]}  # fmt: skip
    assert "Accuracy" not in charts
