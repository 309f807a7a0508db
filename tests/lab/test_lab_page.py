"""The lab's page as Streamlit draws it, without a browser."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from inspector.lab.lessons import lessons
from inspector.lab.sandbox import Sandbox
from inspector.ui import lab_page

SCRIPT = "from inspector.ui.lab_page import lab_page\nlab_page()"


@pytest.fixture
def app(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(lab_page, "shared", lambda: sandbox)
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
