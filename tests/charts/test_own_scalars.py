"""Scalars of a script's own on the Live page: all of them, and those that come later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from inspector.charts.boards import overview
from inspector.events import RunStarted
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.server import App

WAIT = 30_000


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


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[Writer]]:
    """Two ranks of a run that goes on."""
    path = create_run(tmp_path / "runs", "job", {"config": {}})
    made = [Writer(path, rank=rank) for rank in range(2)]
    for writer in made:
        writer.event(0, RunStarted())
    yield made
    for writer in made:
        writer.close()


@pytest.mark.browser
def test_a_new_scalar_appears_while_the_run_goes_and_ranks_can_be_chosen(
    chromium: Any, tmp_path: Path, writers: list[Writer]
) -> None:
    keys = (SeriesKey("loss"),)
    for rank, writer in enumerate(writers):
        for step in range(30):
            writer.append("scalar", step, keys, [1.0 + rank])
        writer.flush()
    app = App(tmp_path / "runs")
    try:
        page = chromium.new_context(viewport={"width": 1280, "height": 1600}).new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"{app.link}")
        page.goto(f"{app.base}/live?run=job")
        legend = page.locator(".card", has_text="Loss").first
        legend.get_by_text("1.000", exact=False).or_(
            legend.get_by_text("1", exact=True)
        ).first.wait_for()
        assert page.get_by_text("reward", exact=True).count() == 0
        for step in range(30, 40):
            writers[0].append("own", step, (SeriesKey("reward"),), [0.5])
        writers[0].flush()
        page.get_by_text("reward", exact=True).first.wait_for()
        page.get_by_test_id("stButtonGroup").get_by_text("1", exact=True).click()
        legend.get_by_text("2", exact=True).first.wait_for()
    finally:
        app.close()
