"""There and back: a person's own model is trained in the app, its weights are exported from it and
taken in again. (Its curves make the same way in tests/own/test_own_browser.py.)"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import inspector
from inspector.store.reader import list_runs
from tests.app.server import App

pytestmark = pytest.mark.browser
SHORT = 30_000
LONG = 60_000
MODEL = '''from torch import nn


class Shapes(nn.Module):
    """Tells shapes apart by two measurements."""

    def __init__(self, in_features: int, num_classes: int, hidden: int = 16):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_features, hidden), nn.Tanh())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x):
        return self.head(self.body(x))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("work")
    (made / "shapes.py").write_text(MODEL, "utf-8")
    rng = np.random.default_rng(0)
    rows = ["length,width,kind"]
    for row in range(240):
        kind = row % 3
        length, width = rng.normal((2.0 * kind, 1.0 - kind), 0.2)
        rows.append(f"{length:.3f},{width:.3f},{'abc'[kind]}")
    (made / "shapes.csv").write_text("\n".join(rows), "utf-8")
    return made


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[App]:
    served = App(folder / "runs")
    yield served
    served.close()


@pytest.fixture(scope="module")
def page(chromium: Any, app: App) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(SHORT)
    opened.goto(app.link)
    yield opened
    context.close()


def until(page: Any, reached: Callable[[], bool]) -> None:
    for _ in range(LONG // 200):
        if reached():
            return
        page.wait_for_timeout(200)
    raise AssertionError("not reached")


def choose(page: Any, label: str, text: str) -> None:
    box = page.get_by_role("combobox", name=re.compile(label)).first
    box.click()
    box.fill(text)
    box.press("Enter")


def start_and_finish(page: Any) -> None:
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")
    page.locator(".strip .badge:has-text('Finished')").wait_for(timeout=LONG)


def exported(page: Any, wanted: str, target: Path) -> Path:
    page.locator(f"[class*='-{wanted}-prepare'] button").click()
    ready = page.locator(f"[class*='-{wanted}-download'] button")
    ready.wait_for(timeout=LONG)
    with page.expect_download() as download:
        ready.click()
    download.value.save_as(target)
    return target


def bring(page: Any, folder: Path) -> None:
    """Fills in the form: the person's model file and table."""
    page.get_by_text("Choose model, data and optimizer").click()
    page.get_by_role("combobox", name=re.compile("Model")).first.click()
    page.get_by_role("option", name="Your own …").first.click()
    choose(page, "Python file", str(folder / "shapes.py"))
    page.get_by_text("Tells shapes apart").wait_for()
    page.get_by_role("combobox", name=re.compile("Data")).first.click()
    page.get_by_role("option", name="Your own …").first.click()
    choose(page, "CSV or Parquet file", str(folder / "shapes.csv"))
    page.get_by_role("heading", name=re.compile(r"Shapes on shapes\.csv")).wait_for()


def test_own_model_and_table_train(page: Any, app: App, folder: Path) -> None:
    bring(page, folder)
    rate = page.get_by_label("Learning rate", exact=True)
    rate.fill("0.5")
    rate.press("Enter")
    page.get_by_text("learning rate 0.5").wait_for()
    page.get_by_role("radio", name="steps", exact=True).click()
    length = page.get_by_label("Steps", exact=True)
    length.fill("150")
    length.press("Enter")
    page.get_by_text("150 steps").wait_for()
    start_and_finish(page)
    with inspector.open_run(list_runs(app.runs_dir)[0].path) as run:
        assert run.config["data"] == f"csv:{folder / 'shapes.csv'}"
        assert run.series("val_accuracy").values[-1] > 0.9


def test_weights_are_exported(page: Any, app: App, folder: Path) -> None:
    page.goto(f"{app.base}/runs")
    table = page.locator("[data-testid=stDataFrame] .dvn-scroller").first
    table.wait_for()
    table.click(position={"x": 18, "y": 52})
    page.get_by_text("Export", exact=True).click()
    weights = exported(page, "safetensors-last", folder / "shapes.safetensors")
    assert set(load_file(weights)) == {"body.0.weight", "body.0.bias", "head.weight", "head.bias"}


def test_exported_weights_begin_a_new_run_where_the_first_ended(
    page: Any, app: App, folder: Path
) -> None:
    page.reload()  # what was chosen is forgotten
    page.get_by_role("link", name="Start", exact=True).first.click()
    bring(page, folder)
    page.get_by_text("More: weights, task, split, loading").click()
    choose(page, "Start from weights", str(folder / "shapes.safetensors"))
    page.get_by_role("button", name="Check and preview").click()
    page.get_by_text("All 4 weights fit.").wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")
    until(page, lambda: bool((list_runs(app.runs_dir)[0].step or 0) > 3))
    built = [run for run in list_runs(app.runs_dir) if run.kind == "built_in"]
    with inspector.open_run(built[-1].path) as first, inspector.open_run(built[0].path) as second:
        assert second.config["weights"] == str(folder / "shapes.safetensors")
        losses = first.series("loss").values
        begin, end = float(losses[0]), float(losses[-10:].mean())
        assert end < begin / 3
        assert second.series("loss").values[0] == pytest.approx(end, abs=0.3 * begin)
    assert "Traceback" not in app.log.read_text()
