"""Every page on a finished run, a failed one and an empty folder: what a person reads there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torchvision
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.events import Frame, RunFailed
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.training import runner
from inspector.ui.shell import PAGES
from tests.app.in_process import open_app, read, turn_to

RUN_PAGES = [name for name, (_, looks_at_run) in PAGES.items() if looks_at_run]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the default model, and one whose model raised."""
    folder = tmp_path_factory.mktemp("runs")
    failed = create_run(folder, "failed", {"kind": "built_in", "config": RunConfig().to_dict()})
    writer = Writer(failed)
    writer.event(
        3,
        RunFailed(
            error="ValueError",
            message="<b>not markup</b>",
            phase="forward",
            module="body.0",
            frames=(Frame("my_model.py", 12, "forward", "raise ValueError"),),
        ),
    )
    writer.close()
    runner.start(RunConfig(steps=30, torch_threads=1), folder, name="good")
    assert runner.join(60)
    return folder


@pytest.fixture
def app(runs_dir: Path) -> AppTest:
    return open_app(runs_dir)


def on_page(app: AppTest, name: str, run: str = "good") -> AppTest:
    app.query_params["run"] = run
    return turn_to(app, name)


def test_first_screen_says_what_is_loaded_and_offers_start(app: AppTest) -> None:
    app.run()
    assert not app.exception
    assert "Multilayer perceptron on handwritten digits" in read(app)
    assert app.button(key="start").label == "Start"
    assert sum(button.label == "Load" for button in app.button) >= 8


def test_preset_is_loaded_by_one_click(app: AppTest) -> None:
    app.run()
    app.button(key="load/vanishing").click().run()
    assert not app.exception
    assert "Deep sigmoid net on handwritten digits" in read(app)
    assert app.button(key="load/vanishing").label == "Loaded"


def test_form_changes_what_is_loaded(app: AppTest) -> None:
    app.run()
    app.selectbox(key="data/0").select("two_moons").run()
    app.number_input(key="lr/0").set_value(0.5).run()
    assert not app.exception
    assert "on two moons" in read(app)
    assert "learning rate 0.5" in read(app)


def test_model_box_has_every_classifier_and_takes_no_other_word(app: AppTest) -> None:
    app.run()
    box = app.selectbox(key="model/0")
    known = {f"torchvision:{name}" for name in torchvision.models.list_models(torchvision.models)}
    assert {option for option in box.options if option.startswith("torchvision:")} == known
    assert not box.proto.accept_new_options


def test_misfit_of_model_and_data_is_said_before_the_start(app: AppTest) -> None:
    app.run()
    app.selectbox(key="model/0").select("lenet").run()
    app.selectbox(key="data/0").select("diabetes").run()
    assert any("lenet takes samples of layout image" in str(w.value).replace("\\", "")
               for w in app.warning)  # fmt: skip
    app.button(key="start").click().run()
    assert any("lenet" in str(error.value) for error in app.error)


@pytest.mark.parametrize("name", RUN_PAGES)
def test_every_page_shows_a_finished_run(app: AppTest, name: str) -> None:
    on_page(app, name)
    assert any("This run has ended" in str(caption.value) for caption in app.sidebar.caption)


def test_modules_page_lists_shapes_and_finds_a_module(app: AppTest) -> None:
    on_page(app, "modules")
    table = app.dataframe[0].value
    row = table[table["path"] == "head"].iloc[0]
    assert (row["inputs"], row["outputs"], row["parameters"]) == ("64×128", "64×10", 1290)
    app.text_input[0].set_value("head").run()
    assert list(app.dataframe[0].value["path"]) == ["head"]


def test_events_page_lists_what_happened_and_narrows_it(app: AppTest) -> None:
    on_page(app, "events")
    assert "Start" in cells(app, "kind")
    app.button_group[0].set_value(["End"]).run()
    assert cells(app, "words") == ["Run completed."]


def cells(app: AppTest, column: str) -> list[str]:
    """Texts of a column of the table of events."""
    drawn = "".join(str(element.proto.body) for element in app.get("html"))
    return re.findall(f'<td class="{column}">(.*?)</td>', drawn)


def test_failed_run_shows_the_users_own_lines_verbatim_and_retry(app: AppTest) -> None:
    on_page(app, "live", "failed")
    shown = read(app)
    assert "Failed at step 3" in shown
    assert "ValueError: <b>not markup</b>" in [code.value for code in app.code]
    assert "my_model.py:12" in shown
    assert "Retry" in [button.label for button in app.button]


def test_runs_page_lists_both(app: AppTest) -> None:
    on_page(app, "runs")
    listed = app.dataframe[0].value
    assert dict(zip(listed["name"], listed["status"], strict=True)) == {
        "good": "finished",
        "failed": "failed",
    }
    assert listed.set_index("name").loc["good", "steps"] == 30


@pytest.mark.parametrize("name", ["live", "runs"])
def test_empty_folder_is_explained(tmp_path: Path, name: str) -> None:
    app = on_page(open_app(tmp_path / "none"), name)
    assert "Start" in read(app)
