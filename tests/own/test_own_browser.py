"""A person brings a model file and a table: chosen in the app, checked, trained, seen to learn."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime import InferenceSession

import inspector
from inspector.store.reader import list_runs
from tests.app.server import App

pytestmark = pytest.mark.browser
SHORT = 30_000  # milliseconds a person on a busy two-core machine would still wait
MODEL = '''from torch import nn


class Flowers(nn.Module):
    """Tells flowers apart.

    Args:
        hidden: width of the hidden layer.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: int = 24):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x):
        return self.head(self.body(x))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and measurements of flowers of which one row is broken."""
    made = tmp_path_factory.mktemp("own")
    (made / "flowers.py").write_text(MODEL, "utf-8")
    rows = ["length,width,kind"]
    for row in range(120):
        kind = row % 3
        rows.append(f"{5 + kind + 0.1 * (row % 7):.2f},{1 + kind / 2:.2f},{'abc'[kind]}")
    (made / "flowers.csv").write_text("\n".join([*rows, "x,1.5,a"]), "utf-8")
    return made


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[App]:
    served = App(folder / "runs")
    yield served
    served.close()


@pytest.fixture(scope="module")
def page(chromium: Any, app: App) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(SHORT)
    opened.goto(app.link)
    yield opened
    context.close()


def choose(page: Any, label: str, text: str, *, listed: bool = False) -> None:
    box = page.get_by_role("combobox", name=re.compile(label)).first
    box.click()
    if listed:
        page.get_by_role("option", name=text).first.click()
        return
    box.fill(text)
    box.press("Enter")


def test_the_first_screen_is_as_short_as_before(page: Any) -> None:
    page.get_by_role("button", name="Start", exact=True).wait_for()
    assert page.get_by_text("Your own model").count() == 0
    assert page.get_by_text("Presets").bounding_box()["y"] < 400


def test_a_model_file_is_chosen_and_its_arguments_are_fields(page: Any, folder: Path) -> None:
    page.get_by_text("Choose model, data and optimizer").click()
    choose(page, "Model", "Your own …", listed=True)
    choose(page, "Python file", str(folder / "flowers.py"))
    page.get_by_text("Tells flowers apart.").wait_for()
    hidden = page.get_by_label("hidden", exact=True)
    assert hidden.input_value() == "24"
    assert page.get_by_label("num_classes", exact=True).get_attribute("placeholder") == (
        "from the data"
    )
    hidden.fill("12")
    hidden.press("Enter")
    page.get_by_role("heading", name=re.compile("Flowers on handwritten digits")).wait_for()


def test_a_broken_row_is_named_and_mended(page: Any, folder: Path) -> None:
    choose(page, "Data", "Your own …", listed=True)
    choose(page, "CSV or Parquet file", str(folder / "flowers.csv"))
    page.get_by_role("heading", name=re.compile(r"Flowers on flowers\.csv")).wait_for()
    check = page.get_by_role("button", name="Check and preview")
    check.click()
    page.get_by_text("line 122, column 'length': expected a finite number, but got 'x'").wait_for()
    table = folder / "flowers.csv"
    table.write_text(table.read_text("utf-8").replace("\nx,1.5,a", ""), "utf-8")
    check.click()
    found = page.locator(".st-key-own-check")
    found.get_by_text("classification · 96 to train on · 24 for validation").wait_for()
    assert "Flowers: 75 parameters" in found.inner_text()
    found.get_by_text("A batch as the model sees it").wait_for()
    found.get_by_test_id("stDataFrame").nth(2).wait_for()


def test_it_trains_with_its_own_modules_on_screen(page: Any, app: App, folder: Path) -> None:
    page.locator("[data-test-script-state=notRunning]").first.wait_for()  # drawn once more
    page.get_by_text("More: weights, task, split, loading").click()
    page.get_by_text("Normalise by the training part").click()
    page.get_by_text("The settings have changed since the last check").wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")
    page.locator(".strip .badge:has-text('Running'), .strip .badge:has-text('Finished')").wait_for()
    page.locator("canvas").first.wait_for()
    page.locator(".strip .badge:has-text('Finished')").wait_for(timeout=4 * SHORT)
    with inspector.open_run(list_runs(app.runs_dir)[0].path) as run:
        assert run.config["model"] == f"file:{folder / 'flowers.py'}:Flowers"
        assert run.config["model_args"] == {"hidden": 12}
        assert run.config["normalize"] is True
        assert run.series("val_accuracy").values[-1] > 0.9
        assert (run.path / "blobs" / "source" / "flowers.py").read_text("utf-8") == MODEL
    page.get_by_role("link", name="Modules", exact=True).first.click()
    page.get_by_text("75").first.wait_for()
    assert "Traceback" not in app.log.read_text()


def test_code_typed_into_the_app_trains(page: Any, app: App) -> None:
    page.get_by_role("link", name="Start", exact=True).first.click()
    page.get_by_text("Choose model, data and optimizer").click()
    page.get_by_role("radio", name="Typed here").first.click()
    text = page.locator(".cm-content").first
    text.click()
    page.keyboard.press("Control+End")
    page.keyboard.insert_text("\n# typed by hand\n")
    page.get_by_role("heading", name=re.compile(r"Net on flowers\.csv")).wait_for()
    page.get_by_role("button", name="Check and preview").click()
    page.locator(".st-key-own-check").get_by_text("Net: 387 parameters").wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")
    page.locator(".strip .badge:has-text('Finished')").wait_for(timeout=4 * SHORT)
    with inspector.open_run(list_runs(app.runs_dir)[0].path) as run:
        kept = (run.path / "blobs" / "source" / "your_code.py").read_text("utf-8")
        assert kept == run.config["code"]
        assert kept.endswith("# typed by hand\n")


def test_it_is_exported_and_taken_up_again(page: Any, app: App, tmp_path: Path) -> None:
    mine = list_runs(app.runs_dir)[0].name
    page.goto(f"{app.base}/runs")
    page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    first_row = {"x": 18, "y": 52}
    page.locator("[data-testid=stDataFrame] .dvn-scroller").first.click(position=first_row)
    page.get_by_role("button", name="Open").wait_for()
    page.get_by_text("Export", exact=True).click()
    got = {}
    for tab, key in (("Model", "onnx-last"), ("Telemetry", "tensorboard-long")):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"[class*='{key}-prepare'] button").click()
        download = page.locator(f"[class*='{key}-download'] button")
        download.wait_for(timeout=2 * SHORT)
        with page.expect_download() as offered:
            download.click()
        got[tab] = tmp_path / offered.value.suggested_filename
        offered.value.save_as(got[tab])
    page.get_by_role("tab", name="Model").click()
    page.get_by_text("Agrees with PyTorch on batches of 1, 2,").wait_for()
    session = InferenceSession(got["Model"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: np.zeros((5, 2), np.float32)})
    assert scores.shape == (5, 3)
    with zipfile.ZipFile(got["Telemetry"]) as archive:
        archive.extractall(app.runs_dir)
    cells = page.locator("[data-testid=stDataFrame]").first.locator("canvas td")
    for _ in range(SHORT // 100):
        if f"{mine}-tensorboard" in cells.all_text_contents():
            break
        page.wait_for_timeout(100)
    with (
        inspector.open_run(mine, app.runs_dir) as run,
        inspector.open_run(f"{mine}-tensorboard", app.runs_dir) as back,
    ):
        assert back.meta["kind"] == "imported"
        for name in ("loss", "val_accuracy", "lr"):
            before, after = run.series(name), back.series(name)
            assert before.steps.tolist() == after.steps.tolist()
            assert before.values.tolist() == after.values.tolist()
