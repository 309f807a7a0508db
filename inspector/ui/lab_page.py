"""The autograd lab: a lesson or a snippet of one's own, run in a child process, and its graph."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from inspector.errors import InspectorError
from inspector.lab.lessons import Lesson, Slider, lessons, setting, with_setting
from inspector.lab.report import Report
from inspector.lab.sandbox import shared
from inspector.ui.editor import editor
from inspector.ui.lab_results import results


@dataclass(slots=True)
class _State:
    """What one browser tab works on.

    Attributes:
        revision: raised whenever the text in the editor is replaced.
        ran: the text that ``report`` is about; None when it has yet to run.
    """

    lesson: str
    code: str
    revision: int = 0
    ran: str | None = None
    report: Report | None = None

    def replace(self, code: str) -> None:
        self.code = code
        self.revision += 1
        self.ran = None


def lab_page() -> None:
    """Draws the page."""
    shared().warm()
    state = _state()
    lesson = lessons()[state.lesson]
    _head(state)
    left, right = st.columns([0.5, 0.5], gap="medium")
    with left:
        pressed = _work(state, lesson)
    if pressed or state.ran is None:
        with right:
            _run(state)
        # The editor marks the line of the error, and it is drawn before the snippet runs.
        if state.report is not None and state.report.error is not None:
            st.rerun()
    with right:
        if state.report is not None:
            results(state.report, key=f"lab/{state.lesson}")


def _state() -> _State:
    """The tab's state; at first the lesson that the link names."""
    if "lab" not in st.session_state:
        known = lessons()
        key = st.query_params.get("lesson", "")
        first = known.get(key) or known["chain_rule"]
        st.session_state["lab"] = _State(first.key, first.snippet)
    state: _State = st.session_state["lab"]
    st.query_params["lesson"] = state.lesson
    return state


def _head(state: _State) -> None:
    keys = list(lessons())
    place = keys.index(state.lesson)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Autograd lab", width="content")
        st.session_state["lab/lesson"] = state.lesson
        st.selectbox(
            "Lesson", keys, key="lab/lesson", label_visibility="collapsed", width=480,
            format_func=lambda key: _label(keys.index(key), lessons()[key]),
            on_change=lambda: _open(state, st.session_state["lab/lesson"]),
        )  # fmt: skip
        for name, icon, target in (
            ("previous", ":material/chevron_left:", place - 1),
            ("next", ":material/chevron_right:", place + 1),
        ):
            inside = 0 <= target < len(keys)
            st.button(
                "", icon=icon, key=f"lab/{name}", help=f"{name.capitalize()} lesson",
                disabled=not inside, on_click=_open,
                args=(state, keys[target] if inside else state.lesson),
            )  # fmt: skip


def _label(place: int, lesson: Lesson) -> str:
    return f"{place + 1} · {lesson.chapter} · {lesson.title}"


def _open(state: _State, key: str) -> None:
    state.lesson = key
    state.report = None
    state.replace(lessons()[key].snippet)


def _work(state: _State, lesson: Lesson) -> bool:
    """Text, editor and sliders; whether the snippet shall run now."""
    st.markdown(lesson.notice)
    if lesson.sliders:
        for place, slider in zip(st.columns(len(lesson.sliders)), lesson.sliders, strict=True):
            with place:
                _slider(state, slider)
    error = state.report.error if state.report is not None else None
    line = error.line if error is not None and state.code == state.ran else 0
    edited = editor(state.code, revision=state.revision, error_line=line, key="lab/editor")
    if edited.code is not None:
        state.code = edited.code
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(
            "Run", type="primary", icon=":material/play_arrow:", key="lab/run",
            help="Ctrl+Enter in the editor",
        )  # fmt: skip
        st.button(
            "Reset", icon=":material/restart_alt:", key="lab/reset",
            disabled=state.code == lesson.snippet, on_click=_open, args=(state, lesson.key),
        )  # fmt: skip
        if state.ran is not None and state.code != state.ran and not pressed and not edited.run:
            st.caption("Changed since it ran.", width="content")
    with st.expander(f"**Question.** {lesson.question}", key=f"lab/question/{lesson.key}"):
        st.markdown(lesson.answer)
    return pressed or edited.run


def _slider(state: _State, slider: Slider) -> None:
    """One slider; it shows and rewrites a number in the snippet."""
    now = setting(state.code, slider.name)
    if now is None:
        st.caption(f"There is no line `{slider.name} = number` left for the slider to move.")
        return
    key = f"lab/slider/{state.lesson}/{slider.name}"
    kind = int if slider.whole else float
    st.session_state[key] = kind(min(max(now, slider.low), slider.high))

    def moved() -> None:
        state.replace(with_setting(state.code, slider.name, st.session_state[key]))

    st.slider(
        f"`{slider.name}`", kind(slider.low), kind(slider.high), step=kind(slider.step), key=key,
        format="%d" if slider.whole else "%g", on_change=moved,
    )  # fmt: skip


def _run(state: _State) -> None:
    state.ran = state.code
    try:
        with st.spinner("Running …"):
            state.report = shared().run(state.code)
    except InspectorError as error:
        state.report = Report(stopped=str(error))
