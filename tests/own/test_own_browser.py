"""A person brings a model file and a table: checked, trained, exported, taken in again."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession
from safetensors.torch import load_file

import inspector
from inspector.store.reader import list_runs
from tests.app.server import App
from tests.app.tab import PATIENCE, Tab

pytestmark = pytest.mark.browser
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


def newest(app: App) -> inspector.Run:
    return inspector.open_run(list_runs(app.runs_dir)[0].path)


def test_the_first_screen_is_as_short_as_before(tab: Tab) -> None:
    tab.button("Start").wait_for()
    assert tab.page.get_by_text("Your own model").count() == 0
    presets = tab.page.get_by_text("Presets").bounding_box()
    assert presets is not None and presets["y"] < 400


def test_a_model_file_is_chosen_and_its_arguments_are_fields(tab: Tab, folder: Path) -> None:
    page = tab.page
    tab.unfold("Choose model, data and optimizer", page.get_by_text("Length in"))
    tab.choose("Model", "Your own …", page.get_by_label("Python file"))
    tab.choose("Python file", str(folder / "flowers.py"), page.get_by_text("Tells flowers apart."))
    hidden = page.get_by_label("hidden", exact=True)
    assert hidden.input_value() == "24"
    assert page.get_by_label("num_classes", exact=True).get_attribute("placeholder") == (
        "from the data"
    )
    tab.fill("hidden", "12")
    page.get_by_role("heading", name=re.compile("Flowers on handwritten digits")).wait_for()


def test_a_broken_row_is_named_and_mended(tab: Tab, folder: Path) -> None:
    page = tab.page
    tab.choose("Data", "Your own …", page.get_by_label("CSV or Parquet file"))
    brought = page.get_by_role("heading", name=re.compile(r"Flowers on flowers\.csv"))
    tab.choose("CSV or Parquet file", str(folder / "flowers.csv"), brought)
    broken = "line 122, column 'length': expected a finite number, but got 'x'"
    tab.press("Check and preview", page.get_by_text(broken))
    table = folder / "flowers.csv"
    table.write_text(table.read_text("utf-8").replace("\nx,1.5,a", ""), "utf-8")
    found = page.locator(".st-key-own-check")
    split = found.get_by_text("classification · 96 to train on · 24 for validation")
    tab.press("Check and preview", split)
    assert "Flowers: 75 parameters" in found.inner_text()
    found.get_by_text("A batch as the model sees it").wait_for()
    found.get_by_test_id("stDataFrame").nth(2).wait_for()


def test_it_trains_with_its_own_modules_on_screen(tab: Tab, app: App, folder: Path) -> None:
    page = tab.page
    normalise = page.get_by_text("Normalise by the training part")
    tab.unfold("More: weights, task, split, loading", normalise)
    changed = page.get_by_text("The settings have changed since the last check")
    tab.click(normalise, changed)
    tab.fill("Learning rate", "0.5", page.get_by_text("learning rate 0.5"))
    tab.pick("steps")
    tab.fill("Steps", "150", page.get_by_text("150 steps"))
    app.full_speed(tab.start())
    page.locator("canvas").first.wait_for()
    tab.finish()
    with newest(app) as run:
        assert run.config["model"] == f"file:{folder / 'flowers.py'}:Flowers"
        assert run.config["data"] == f"csv:{folder / 'flowers.csv'}"
        assert run.config["model_args"] == {"hidden": 12}
        assert run.config["normalize"] is True
        assert (run.config["lr"], run.config["steps"]) == (0.5, 150)
        assert run.series("val_accuracy").values[-1] > 0.9
        assert (run.path / "blobs" / "source" / "flowers.py").read_text("utf-8") == MODEL
    tab.go("Modules")
    page.get_by_text("75").first.wait_for()
    assert "Traceback" not in app.log.read_text()


def test_code_typed_into_the_app_trains(tab: Tab, app: App) -> None:
    page = tab.page
    tab.go("Start")
    tab.unfold("Choose model, data and optimizer", page.get_by_text("Length in"))
    text = page.locator(".cm-content").first
    typed = page.get_by_role("radio", name="Typed here").first
    tab.click(typed, text)
    text.click()
    page.keyboard.press("Control+End")
    page.keyboard.insert_text("\n# typed by hand\n")
    page.get_by_role("heading", name=re.compile(r"Net on flowers\.csv")).wait_for()
    built = page.locator(".st-key-own-check").get_by_text("Net: 387 parameters")
    tab.press("Check and preview", built)
    app.full_speed(tab.start())
    tab.finish()
    with newest(app) as run:
        kept = (run.path / "blobs" / "source" / "your_code.py").read_text("utf-8")
        assert kept == run.config["code"]
        assert kept.endswith("# typed by hand\n")


def test_it_is_exported_and_taken_up_again(tab: Tab, app: App, folder: Path) -> None:
    page = tab.page
    mine = list_runs(app.runs_dir)[0].name
    tab.go("Runs")
    tab.mark(mine, tab.button("Open"))
    tab.unfold("Export", page.get_by_role("tab", name="Telemetry"))
    onnx = exported(tab, "Model", "onnx-last", folder)
    page.get_by_text("Agrees with PyTorch on batches of 1, 2,").wait_for()
    session = InferenceSession(onnx)
    (scores,) = session.run(None, {session.get_inputs()[0].name: np.zeros((5, 2), np.float32)})
    assert scores.shape == (5, 3)
    weights = exported(tab, "Model", "safetensors-last", folder / "mine.safetensors")
    assert sum(weight.numel() for weight in load_file(weights).values()) == 387
    with zipfile.ZipFile(exported(tab, "Telemetry", "tensorboard-long", folder)) as archive:
        archive.extractall(app.runs_dir)

    def listed() -> bool:  # by looking again: by itself the table does so every ten seconds
        tab.go("Start")
        tab.go("Runs")
        tab.until(tab.rows, "a filled table")
        return f"{mine}-tensorboard" in (row[0] for row in tab.rows())

    tab.until(listed, "the import")
    with (
        inspector.open_run(mine, app.runs_dir) as run,
        inspector.open_run(f"{mine}-tensorboard", app.runs_dir) as back,
    ):
        assert back.meta["kind"] == "imported"
        for name in ("loss", "val_accuracy", "lr"):
            before, after = run.series(name), back.series(name)
            assert before.steps.tolist() == after.steps.tolist()
            assert before.values.tolist() == after.values.tolist()


def exported(tab: Tab, part: str, wanted: str, target: Path) -> Path:
    tab.turn_to(part)
    prepare, cancel, ready = (
        tab.page.locator(f"[class*='-{wanted}-{step}'] button")
        for step in ("prepare", "cancel", "download")
    )
    tab.click(prepare, cancel.or_(ready))
    tab.until(ready, f"{wanted} prepared", 3 * PATIENCE)
    return tab.download(ready, target)


def test_exported_weights_begin_a_new_run_where_the_first_ended(
    tab: Tab, app: App, folder: Path
) -> None:
    page = tab.page
    first = next(run.path for run in list_runs(app.runs_dir) if run.kind == "built_in")
    tab.go("Start")
    weights = page.get_by_role("combobox", name="Start from weights")
    tab.unfold("Choose model, data and optimizer", page.get_by_text("Length in"))
    tab.unfold("More: weights, task, split, loading", weights)
    told = page.get_by_text("weights from mine.safetensors")
    tab.choose("Start from weights", str(folder / "mine.safetensors"), told)
    tab.press("Check and preview", page.get_by_text(re.compile(r"All \d weights fit\.")))
    name = tab.start()
    app.full_speed(name)
    tab.finish()
    with inspector.open_run(first) as before, inspector.open_run(name, app.runs_dir) as after:
        assert after.config["weights"] == str(folder / "mine.safetensors")
        losses = before.series("loss").values
        begin, end = float(losses[0]), float(losses[-10:].mean())
        assert end < begin / 3
        assert after.series("loss").values[0] == pytest.approx(end, abs=0.3 * begin)
    assert tab.errors == []
    assert "Traceback" not in app.log.read_text()
