"""The autograd lab: a lesson or a snippet of one's own, run in a child process, and its graph."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from inspector.lab.lessons import Lesson, Slider, lessons, setting, with_setting
from inspector.lab.report import Report
from inspector.lab.sandbox import shared
from inspector.ui.editor import editor
from inspector.ui.lab_export import export
from inspector.ui.lab_job import Job
from inspector.ui.lab_results import results

PATIENCE = 1.5  # seconds; what takes no longer is shown at once, without a running sign


@dataclass(slots=True)
class _State:
    """What one browser tab works on.

    Attributes:
        revision: raised whenever the text in the editor is replaced.
        ran: the text that ``report`` or ``job`` is about; None when it has yet to run.
        job: what runs now.
    """

    lesson: str
    code: str
    revision: int = 0
    ran: str | None = None
    report: Report | None = None
    job: Job | None = None

    def replace(self, code: str) -> None:
        self.code = code
        self.revision += 1
        self.ran = None

    def start(self) -> None:
        """Runs the text; what still runs is ended."""
        if self.job is not None:
            self.job.stop()
        self.ran = self.code
        self.job = Job(shared(), self.code)


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
        state.start()
    if state.job is not None:
        with right:
            finished = _finished(state, state.job)
        # The editor marks the line of the error, and it is drawn before the snippet runs.
        if finished and state.report is not None and state.report.error is not None:
            st.rerun()
    with right:
        if state.job is None and state.report is not None:
            results(state.report, key=f"lab/{state.lesson}")
            export(lesson, state.code, state.report)


def wish_to_run() -> None:
    """Runs the snippet when the page is drawn next, or stops it if it runs now."""
    state = _state()
    if state.job is None:
        state.ran = None
    else:
        state.job.stop()


def step_lesson(by: int) -> None:
    """Opens the lesson that comes so many after this one, if there is one."""
    state, keys = _state(), list(lessons())
    place = keys.index(state.lesson) + by
    if 0 <= place < len(keys):
        _open(state, keys[place])


def _state() -> _State:
    """The tab's state; at first the lesson that the link names."""
    if "lab" not in st.session_state:
        known = lessons()
        key = st.query_params.get("lesson", "")
        first = known.get(key) or known["chain_rule"]
        st.session_state["lab"] = _State(first.key, _as_linked(first))
    state: _State = st.session_state["lab"]
    _link(state, lessons()[state.lesson])
    return state


def _as_linked(lesson: Lesson) -> str:
    """The lesson's snippet with the numbers that the link names; a link never brings code."""
    snippet = lesson.snippet
    for slider in lesson.sliders:
        try:
            wanted = float(st.query_params.get(slider.name, ""))
        except ValueError:
            continue
        if slider.low <= wanted <= slider.high:
            snippet = with_setting(snippet, slider.name, int(wanted) if slider.whole else wanted)
    return snippet


def _link(state: _State, lesson: Lesson) -> None:
    """Keeps lesson and sliders in the address bar."""
    wanted = {"lesson": state.lesson}
    for slider in lesson.sliders:
        now = setting(state.code, slider.name)
        if now is not None and now != slider.default:
            wanted[slider.name] = f"{now:g}"
    every = {slider.name for one in lessons().values() for slider in one.sliders}
    for name in every - wanted.keys():
        if name in st.query_params:
            del st.query_params[name]
    for name, value in wanted.items():
        if st.query_params.get(name) != value:
            st.query_params[name] = value


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
    shown = kind(min(max(now, slider.low), slider.high))
    if st.session_state.get(key) != shown:  # a slider that is set jumps back under a quick hand
        st.session_state[key] = shown

    def moved() -> None:
        state.replace(with_setting(state.code, slider.name, st.session_state[key]))

    st.slider(
        f"`{slider.name}`", kind(slider.low), kind(slider.high), step=kind(slider.step), key=key,
        format="%d" if slider.whole else "%g", on_change=moved,
    )  # fmt: skip


def _finished(state: _State, job: Job) -> bool:
    """Whether the snippet is over; while it is not, a sign and a button to stop it are drawn."""
    if job.wait(PATIENCE):
        state.report, state.job = job.report, None
        return True
    _running(job, shared().limits.seconds)
    return False


@st.fragment(run_every=0.4)
def _running(job: Job, limit: float) -> None:
    if job.wait(0):
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Stop", icon=":material/stop:", type="primary", key="lab/stop"):
            job.stop()
            job.wait(2)
            st.rerun()
        st.caption(f"Running for {job.seconds:.1f} s", width="content")
    st.progress(min(job.seconds / limit, 1.0))
