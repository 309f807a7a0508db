"""The lab's page as Streamlit draws it, without a browser."""

from __future__ import annotations

import html

import pytest
from streamlit.testing.v1 import AppTest

from inspector.lab.lessons import lessons
from inspector.lab.sandbox import Sandbox
from inspector.ui import lab_page
from inspector.ui.lab_export import lesson_page

SCRIPT = "from inspector.ui.lab_page import lab_page\nlab_page()"


@pytest.fixture
def app(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(lab_page, "shared", lambda: sandbox)
    monkeypatch.setattr(lab_page, "PATIENCE", 60)
    return AppTest.from_string(SCRIPT, default_timeout=60)


def texts(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.subheader, app.error, app.warning, app.code)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def table(app: AppTest) -> dict[str, str]:
    frame = app.dataframe[0].value
    return dict(zip(frame["name"], frame[".grad"], strict=True))


def test_it_opens_with_a_lesson_that_has_run(app: AppTest) -> None:
    app.run()
    assert not app.exception
    assert table(app) == {"x": "6", "y": "6", "s": "None", "z": "None"}
    assert "4 nodes" in texts(app)
    assert app.query_params["lesson"] == "chain_rule"


@pytest.mark.parametrize("key", ["freed_graph", "shape_mismatch", "heat", "initialisation"])
def test_a_link_opens_its_lesson(app: AppTest, key: str) -> None:
    app.query_params["lesson"] = key
    app.run()
    assert not app.exception
    assert app.selectbox(key="lab/lesson").value == key
    assert bool(app.error) == bool(lessons()[key].error)


def test_a_slider_rewrites_the_snippet_and_runs_it(app: AppTest) -> None:
    app.run()
    app.slider(key="lab/slider/chain_rule/start_x").set_value(-2.0).run()
    assert not app.exception
    assert table(app)["x"] == "0"
    assert "start_x = -2.0\n" in app.session_state["lab"].code
    app.button(key="lab/reset").click().run()
    assert table(app)["x"] == "6"


def test_next_and_previous_walk_through_the_lessons(app: AppTest) -> None:
    keys = list(lessons())
    app.query_params["lesson"] = keys[0]
    app.run()
    assert app.button(key="lab/previous").disabled
    app.button(key="lab/next").click().run()
    assert app.session_state["lab"].lesson == keys[1]
    app.button(key="lab/previous").click().run()
    assert app.session_state["lab"].lesson == keys[0]


def test_an_unknown_lesson_in_the_link_opens_the_first_choice(app: AppTest) -> None:
    app.query_params["lesson"] = "<script>"
    app.run()
    assert not app.exception
    assert app.session_state["lab"].lesson == "chain_rule"


def test_text_of_a_snippet_is_never_markup(app: AppTest) -> None:
    app.run()
    app.session_state["lab"].replace(
        "class Odd(Exception): pass\n"
        "Odd.__name__ = '**[x](javascript:alert(1))**'\n"
        "raise Odd('<b>')"
    )
    app.run()
    assert not app.exception
    assert "[x](" not in app.error[0].value


def test_a_link_sets_sliders_within_their_range_and_nothing_else(app: AppTest) -> None:
    app.query_params["lesson"] = "chain_rule"
    app.query_params["start_x"] = "-2"
    app.query_params["start_y"] = "1e9"
    app.query_params["code"] = "print(1)"
    app.run()
    assert not app.exception
    assert "start_x = -2.0\n" in app.session_state["lab"].code
    assert table(app)["x"] == "0"
    assert "start_y" not in app.query_params
    app.slider(key="lab/slider/chain_rule/start_x").set_value(0.0).run()
    assert app.query_params["start_x"] == "0"
    app.button(key="lab/reset").click().run()
    assert "start_x" not in app.query_params


def test_a_running_snippet_shows_a_button_that_stops_it(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run()
    monkeypatch.setattr(lab_page, "PATIENCE", 0.3)
    app.session_state["lab"].replace("print('so far', flush=True)\nwhile True: pass")
    app.run()
    assert app.button(key="lab/stop").label == "Stop"
    job = app.session_state["lab"].job
    app.button(key="lab/stop").click().run()
    assert job.report.stopped.startswith("You stopped the snippet after")
    assert "You stopped the snippet" in texts(app)
    assert "so far" in texts(app)


def test_a_result_is_one_page_that_holds_everything(sandbox: Sandbox) -> None:
    for key in ("clipping", "shape_mismatch"):
        lesson = lessons()[key]
        made = lesson_page(lesson, lesson.snippet, sandbox.run(lesson.snippet))
        assert "<script src" not in made
        assert "connect-src" not in made
        assert "default-src 'none'" in made
        assert html.escape(lesson.snippet.splitlines()[-1]) in made
        assert ("Plotly.newPlot" in made) == (key == "clipping")
        assert ('<div class="error">' in made) == bool(lesson.error)


def test_names_in_an_exported_page_are_text(sandbox: Sandbox) -> None:
    code = (
        "import torch\nbad = '</script><script>alert(1)</script>'\n"
        "net = torch.nn.Module()\nnet.register_parameter(bad, torch.nn.Parameter(torch.ones(1)))\n"
        "net._parameters[bad].sum().backward()\nprint(bad)"
    )
    made = lesson_page(lessons()["leaf"], code, sandbox.run(code))
    assert "<script>alert(1)" not in made
    assert "\\u003c/script>" in made


def test_presenter_keys_run_stop_and_turn_the_pages(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_page, "shared", lambda: sandbox)
    monkeypatch.setattr(lab_page, "PATIENCE", 60)
    app = AppTest.from_string(
        "import streamlit as st\n"
        "from inspector.ui.presenter import _press\n"
        "if key := st.session_state.pop('pressed', None):\n"
        "    _press(key, 'lab')\n" + SCRIPT,
        default_timeout=60,
    )
    app.run()
    keys = list(lessons())
    app.session_state["pressed"] = "right"
    app.run()
    assert app.session_state["lab"].lesson == keys[keys.index("chain_rule") + 1]
    app.session_state["pressed"] = "left"
    app.run()
    assert app.session_state["lab"].lesson == "chain_rule"
    before = app.session_state["lab"].report
    app.session_state["pressed"] = "space"
    app.run()
    assert app.session_state["lab"].report is not before
    monkeypatch.setattr(lab_page, "PATIENCE", 0.2)
    app.session_state["lab"].replace("while True: pass")
    app.run()
    job = app.session_state["lab"].job
    app.session_state["pressed"] = "space"
    app.run()
    assert job.wait(20)
    assert job.report.stopped.startswith("You stopped")
