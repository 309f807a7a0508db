"""Runs and Compare: what a person reads there, marks, and does to runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.events import CommandApplied, RunContinued, RunFinished
from inspector.quantities import SeriesKey
from inspector.store.housekeeping import rename_run
from inspector.store.layout import create_run
from inspector.store.reader import list_runs
from inspector.store.writer import Writer
from inspector.ui.tables import is_wide, table_height
from tests.app.in_process import open_app, turn_to

KEYS = (SeriesKey("loss"), SeriesKey("epoch"))


def make_run(folder: Path, name: str, config: RunConfig | None, losses: list[float],
             first: int = 0) -> Writer:  # fmt: skip
    kind = "built_in" if config else "watched"
    content = {"kind": kind, "config": config.to_dict() if config else {}}
    writer = Writer(create_run(folder, name, content))
    for step, loss in enumerate(losses, first):
        row = np.array([loss, (step + 1) / 10], np.float32)
        writer.append("run", step, KEYS, row)
    return writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plain = make_run(tmp_path, "plain", RunConfig(lr=0.1), [3.0, 2.0, 1.0])
    plain.event(1, CommandApplied(command_id="x", name="lr", requested=0.2, effective=0.2))
    plain.event(2, RunFinished())
    clipped = make_run(
        tmp_path, "clipped", RunConfig(lr=0.1, controls=Controls(clip="norm")), [3.0, 1.5, 0.5]
    )
    clipped.event(2, RunFinished())
    script = make_run(tmp_path, "script", None, [4.0, 3.5])
    for writer in (plain, clipped, script):
        writer.close()
    return tmp_path


@pytest.fixture
def app(folder: Path) -> AppTest:
    return open_app(folder).run()


def compared(app: AppTest, *names: str) -> AppTest:
    app.query_params["runs"] = list(names)
    return turn_to(app, "compare")


def runs_page(app: AppTest, *marked: str) -> AppTest:
    app.session_state["runs/chosen"] = list(marked)
    return turn_to(app, "runs")


def test_only_the_setting_that_differs_is_shown(app: AppTest) -> None:
    compared(app, "plain", "clipped")
    table = app.dataframe[0].value
    assert table.to_dict("records") == [
        {"setting": "controls.clip", "plain": "off", "clipped": "norm"}
    ]


def test_settings_of_scripts_are_not_said_to_be_the_same(app: AppTest, folder: Path) -> None:
    make_run(folder, "other-script", None, [1.0, 0.5]).close()
    said = [caption.value for caption in compared(app, "script", "other-script").caption]
    assert any(text.startswith("None that are known.") for text in said)


def test_results_show_last_and_best_of_each_run(app: AppTest) -> None:
    compared(app, "plain", "clipped", "script")
    table = app.dataframe[1].value.set_index("result")
    assert table.loc["Loss, last"].to_dict() == {"plain": "1", "clipped": "0.5", "script": "3.5"}
    assert table.loc["Loss, best", "clipped"] == "0.5  (step 2)"
    assert "Run" not in table.index


def test_many_runs_have_a_row_each_to_sort_by(app: AppTest, folder: Path) -> None:
    names = [f"run{number}" for number in range(6)]
    for number, name in enumerate(names):
        writer = make_run(folder, name, RunConfig(lr=0.1), [3.0, 1.0 + number])
        writer.event(2, RunFinished())
        writer.close()
    compared(app, *names)
    table = next(item.value for item in app.dataframe if "Loss, last" in item.value)
    assert table["run"].tolist() == names
    assert table["Loss, last"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_what_was_done_by_hand_is_told(app: AppTest) -> None:
    compared(app, "plain", "clipped")
    table = app.dataframe[2].value
    assert table.to_dict("records") == [{"run": "plain", "step": 1, "what": "lr = 0.2"}]


def test_address_carries_the_runs_and_follows_the_choice(app: AppTest) -> None:
    compared(app, "plain", "clipped", "gone")
    assert app.multiselect(key="compare/runs").value == ["plain", "clipped"]
    app.multiselect(key="compare/runs").select("script").run()
    assert app.query_params["runs"] == ["plain", "clipped", "script"]


def test_one_run_alone_is_explained(app: AppTest) -> None:
    compared(app, "plain")
    assert "two runs or more" in str(app.info[0].value)


def test_too_few_runs_are_said_to_be(app: AppTest, folder: Path) -> None:
    for gone, said in (("script", ""), ("clipped", "holds one yet"), ("plain", "holds none yet")):
        shutil.rmtree(folder / gone)
        app.run()
        app.switch_page("../../pages/compare.py").run()
        assert not app.exception, app.exception
        assert said in str(app.info[0].value)


def test_the_run_table_has_no_empty_column_and_room_for_names(app: AppTest, folder: Path) -> None:
    rename_run(folder, "plain", "a-run-with-a-name-of-forty-letters-xxxxx")
    app.run()
    app.switch_page("../../pages/runs.py").run()
    columns = json.loads(app.dataframe[0].proto.columns)
    assert columns["note"]["hidden"]
    assert columns["name"]["width"] == 290


def test_a_table_is_as_tall_as_its_rows() -> None:
    assert [table_height(rows, most=5) for rows in (0, 1, 5, 6)] == [38, 73, 213, 213]
    assert table_height(2, most=5, bar=True) == table_height(2, most=5) + 10
    heads = {"name": "Name", "text": "Text"}
    assert not is_wide([{"name": "a", "text": "b" * 80}], heads)
    assert is_wide([{"name": "a" * 60, "text": "b"}, {"name": "a", "text": "b" * 80}], heads)


def test_parallel_coordinates_have_a_line_for_each_run(app: AppTest) -> None:
    compared(app, "plain", "clipped")
    chart = str(app.get("plotly_chart")[0].proto)
    assert "controls.clip: norm" in chart
    assert "Loss, best: 0.5" in chart


def test_parallel_coordinates_are_brushed_by_ranges_and_choices(app: AppTest) -> None:
    compared(app, "plain", "clipped")
    loss = next(one for one in app.select_slider if one.label == "Loss, best")
    assert loss.options == ["0.5", "1"]
    loss.set_value(("0.5", "0.5")).run()
    assert "1 of 2 runs pass the filter" in " ".join(str(one.value) for one in app.caption)
    loss = next(one for one in app.select_slider if one.label == "Loss, best")
    loss.set_value(("0.5", "1")).run()
    groups: list[Any] = list(app.get("button_group"))
    clip = next(one for one in groups if one.label == "controls.clip")
    clip.set_value(["norm"]).run()
    assert "1 of 2 runs pass the filter" in " ".join(str(one.value) for one in app.caption)


def test_a_fork_is_compared_with_its_parent_from_where_it_left(app: AppTest, folder: Path) -> None:
    fork = make_run(folder, "fork", RunConfig(lr=0.5), [1.5], first=2)
    fork.event(2, RunContinued(parent="plain", at=2, changes={"lr": 0.5}))
    fork.event(2, RunFinished())
    fork.close()
    compared(app, "plain", "fork")
    data = str(app.get("bidi_component")[-1].proto)
    assert "Loss: difference since the fork" in data
    assert "u2212 plain" in data  # fork − plain
    assert app.selectbox(key="keep/which/plain/fork").options == ["plain", "fork"]


def test_a_renamed_parent_is_still_the_parent_of_its_forks(app: AppTest, folder: Path) -> None:
    fork = make_run(folder, "fork", RunConfig(lr=0.5), [1.5], first=2)
    fork.event(2, RunContinued(parent="plain", at=2, changes={"lr": 0.5}))
    fork.event(2, RunFinished())
    fork.close()
    rename_run(folder, "plain", "teacher")
    other = make_run(folder, "plain", RunConfig(lr=0.3), [9.0, 9.0, 9.0])  # takes the name later
    other.event(2, RunFinished())
    other.close()
    compared(app, "teacher", "plain", "fork")
    data = str(app.get("bidi_component")[-1].proto)
    assert "u2212 teacher" in data and "u2212 plain" not in data
    assert app.selectbox(key="keep/which/teacher/fork").options == ["teacher", "fork"]


def test_several_marked_runs_offer_to_be_compared(app: AppTest) -> None:
    runs_page(app, "plain", "clipped")
    assert "**2 runs**" in [str(text.value) for text in app.markdown]
    app.button(key="runs/compare").click().run()
    assert not app.exception
    assert app.multiselect(key="compare/runs").value == ["plain", "clipped"]


def test_a_fork_is_listed_with_the_rate_that_it_began_with(app: AppTest, folder: Path) -> None:
    make_run(folder, "fork", RunConfig(lr=0.1, controls=Controls(lr=0.5)), [1.0]).close()
    listed = runs_page(app).dataframe[0].value.set_index("name")
    assert (listed.loc["plain", "lr"], listed.loc["fork", "lr"]) == (0.1, 0.5)


def test_one_marked_run_can_be_renamed(app: AppTest, folder: Path) -> None:
    runs_page(app, "plain")
    app.text_input(key="runs/rename/plain").set_value("baseline").run()
    app.button(key="runs/rename/do").click().run()
    assert not app.exception
    assert {run.name for run in list_runs(folder)} == {"baseline", "clipped", "script"}
    assert "baseline" in set(app.dataframe[0].value["name"])


def test_a_taken_name_is_refused_in_a_sentence(app: AppTest) -> None:
    runs_page(app, "plain")
    app.text_input(key="runs/rename/plain").set_value("clipped").run()
    app.button(key="runs/rename/do").click().run()
    assert "clipped already" in str(app.error[0].value)


def test_a_deleted_run_goes_to_the_trash(app: AppTest, folder: Path) -> None:
    runs_page(app, "plain")
    app.button(key="runs/delete/do").click().run()
    assert not app.exception
    assert set(app.dataframe[0].value["name"]) == {"clipped", "script"}
    assert (folder / ".trash" / "plain").is_dir()


def test_many_runs_can_be_narrowed_by_words_and_status(app: AppTest, folder: Path) -> None:
    for number in range(8):
        make_run(folder, f"more-{number}", RunConfig(optimizer="adam"), [1.0]).close()
    runs_page(app)
    app.text_input(key="runs/find").set_value("ADAM more").run()
    assert len(app.dataframe[0].value) == 8
    app.text_input(key="runs/find").set_value("adam more-3").run()
    assert list(app.dataframe[0].value["name"]) == ["more-3"]


def test_three_hundred_runs_are_listed_and_compared(app: AppTest, folder: Path) -> None:
    for number in range(300):
        create_run(folder, f"run-{number}", {"kind": "built_in", "config": {"lr": number / 10}})
    runs_page(app)
    assert len(app.dataframe[0].value) == 303
    compared(app, "plain", "clipped")
    assert len(app.multiselect(key="compare/runs").options) == 303
