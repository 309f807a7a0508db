"""Presenter mode: large type, high contrast and a keyboard, for a projector.

``?presenter=1`` in a link turns it on; with the other parameters it reopens exactly this view.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import streamlit as st

from inspector.commands import Command, Name
from inspector.errors import StoreError
from inspector.presets import PRESETS
from inspector.store.control import ControlWriter
from inspector.ui import context, runs
from inspector.ui.components import component
from inspector.ui.context import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

PARAMETER = "presenter"
SIZE = 20
"""Pixels of a letter, where they are otherwise 16."""
_component = component("presenter", "presenter", "presenter.js")

# Streamlit's own sizes are rem; contrast is taken to black on white or white on black.
_STYLE = """<style>
html {{ font-size: {size}px !important; }}
.stMainBlockContainer {{ padding: 3.2rem 1.6rem 3rem 1.6rem !important; }}
.stMainBlockContainer [data-testid="stVerticalBlock"] {{ gap: 0.6rem; }}
.stApp, .stApp [data-testid="stHeader"], [data-testid="stSidebar"] {{
  background: {back} !important; color: {text} !important;
}}
.stApp :is(p, li, h1, h2, h3, h4, label, summary), .stApp [data-testid="stCaptionContainer"],
[data-testid="stWidgetLabel"], [data-testid="stMarkdownContainer"] {{ color: {text}; opacity: 1; }}
[data-testid="stSidebar"][data-collapsed="false"] {{ min-width: 18.5rem; }}
.stApp [data-testid="stCaptionContainer"] {{ font-size: 0.95rem !important; }}
.stApp :is(button, input, textarea, [data-baseweb="select"] > div) {{
  border-color: {text} !important;
}}
.stApp label:has(> span [role="switch"]) > div:first-of-type {{ outline: 1.5px solid {text}; }}
.stApp button[kind^="primary"] * {{ color: {on_primary} !important; }}
.stApp button[data-selected="true"] {{ background: {text} !important; }}
.stApp button[data-selected="true"] * {{ color: {back} !important; }}
.stApp {{ --st-text-color: {text}; --st-background-color: {back}; --st-border-color: {line}; }}
</style>"""
_LIGHT = {"text": "#000", "back": "#fff", "line": "#444", "on_primary": "#fff"}
_DARK = {"text": "#fff", "back": "#000", "line": "#bbb", "on_primary": "#0b1020"}


def on() -> bool:
    """Whether this tab presents; a link may have asked for it."""
    if PARAMETER not in st.session_state:
        st.session_state[PARAMETER] = st.query_params.get(PARAMETER) == "1"
    return bool(st.session_state[PARAMETER])


def scale() -> float:
    """How much larger everything is than usual: 1 outside the mode."""
    return SIZE / 16 if on() else 1.0


def enlarged(figure: go.Figure) -> go.Figure:
    """The figure with letters to be read from the last row, and black or white ones."""
    if not on():
        return figure
    letters = {"size": 15, "color": "#fff" if st.context.theme.type == "dark" else "#000"}
    figure.update_xaxes(tickfont=letters, title={"font": letters})
    figure.update_yaxes(tickfont=letters, title={"font": letters})
    figure.update_annotations(font={"size": 15})
    figure.update_traces(textfont={"size": 15}, selector={"type": "bar"})
    figure.update_layout(font=letters, legend={"font": letters})
    figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
    if figure.layout.height:
        figure.layout.height *= scale()
    return figure


def presenter(page: str) -> None:
    """Draws what the mode needs on every page: style, keyboard, the toggle at the side.

    Args:
        page: key of the page in ``shell.PAGES``.
    """
    active = on()
    if active:
        st.query_params[PARAMETER] = "1"
        colours = _DARK if st.context.theme.type == "dark" else _LIGHT
        st.html(_STYLE.format(size=SIZE, **colours))
        _keyboard(page)
    elif PARAMETER in st.query_params:
        del st.query_params[PARAMETER]


def toggle_button() -> None:
    """The button that turns the mode on and off."""
    st.button(
        "", icon=":material/slideshow:" if not on() else ":material/close_fullscreen:",
        key="presenter/toggle", on_click=_toggle, type="primary" if on() else "tertiary",
        help="Leave presenter mode" if on() else "Presenter mode: large type, high contrast, "
        "keyboard (space, arrows, 1 to 9, ?)",
    )  # fmt: skip


def _toggle() -> None:
    st.session_state[PARAMETER] = not on()


def _keyboard(page: str) -> None:
    rows = _help(page)
    result = _component(
        key="presenter/keys", data={"help": rows, "page": page}, on_pressed_change=_nothing
    )
    pressed = result.pressed
    if isinstance(pressed, dict):
        _press(str(pressed.get("key", "")), page)


def _help(page: str) -> list[list[str]]:
    if page == "backward" and st.session_state.get("replay") is not None:
        arrows = "one node on or back in the replay"
        expression = st.session_state["replay"].source == "expression"
        digits = "load an example expression" if expression else "load a preset on Start"
    elif page == "backward":
        arrows, digits = "one node on or back in the replay", "load an example expression"
    elif page == "lab":
        arrows, digits = "next or previous lesson", "load a preset on Start"
    else:
        arrows, digits = "→ trains one step (a run cannot go back)", "load a preset on Start"
    space = {"start": "start what is loaded", "lab": "run or stop the snippet"}.get(
        page, "run or pause the run"
    )
    return [
        ["Space", space], ["→  ←", arrows], ["1 – 9", digits],
        ["Home  End", "first and last node of the replay"],
        ["?", "this overview"], ["Esc", "close it"],
    ]  # fmt: skip


def _press(key: str, page: str) -> None:
    if key.isdecimal():
        _digit(int(key), page)
    elif page == "lab" and key in ("space", "left", "right"):
        from inspector.ui.lab_page import step_lesson, wish_to_run

        if key == "space":
            wish_to_run()
        else:
            step_lesson(1 if key == "right" else -1)
    elif key == "space":
        _space(page)
    elif key == "leave":
        _toggle()
        st.rerun()
    elif key == "right":
        _send("run_steps", 1)
    elif key == "left":
        st.toast("A run cannot step back; the replay on the Backward page can.")


def _digit(number: int, page: str) -> None:
    if page == "backward":
        from inspector.ui.replay_page import choose_example

        if choose_example(number):
            return
    preset = PRESETS[number - 1]
    st.session_state["draft"] = preset.config
    st.session_state["draft_version"] = st.session_state.get("draft_version", 0) + 1
    st.toast(f"Loaded: {preset.title}. Space starts it.")
    if page != "start":
        st.switch_page(st.session_state["pages"]["start"])


def _space(page: str) -> None:
    status = next((s.status for s in context.summaries() if s.name == _run()), "")
    if page == "start" and "draft" in st.session_state:
        runs.start_and_watch(st.session_state["draft"])
    elif status in context.LIVE:
        _send("resume" if status == "paused" else "pause")
    else:
        st.toast("This run has ended; start another on the Start page.")


def _run() -> str | None:
    return st.session_state.get("run")


def _send(name: Name, value: Any = None) -> None:
    run = _run()
    if run is None:
        return
    try:
        with closing(ControlWriter(context.runs_dir() / run)) as writer:
            writer.send(Command(name=name, value=value))
    except StoreError as error:
        st.toast(escape(str(error)), icon="⚠️")


def _nothing() -> None:
    """The trigger needs a callback; its value is read from the result."""
