"""Starting runs and moving between them; the only door from the pages to the trainer."""

from __future__ import annotations

from typing import Any, NoReturn

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui import starting
from inspector.ui.context import escape, runs_dir, select

_STOP_SECONDS = 30.0
_BUTTON = "start"
_TITLE = "Building the model and trying one batch …"


def start_and_watch(config: RunConfig | dict[str, Any]) -> None:
    """Starts a run and goes to its live page; a refusal is shown where the button was pressed.

    A run that trains in this process is stopped first: there is room for one.
    """
    from inspector.training import runner  # imports torch: only when something is to be trained

    try:
        made = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    folder = runs_dir()

    def start(told: starting.Told) -> str:
        if runner.current() is not None:
            told("Stopping the run that is going …", 0.0)
            runner.stop()
            runner.join(_STOP_SECONDS)
        told(_TITLE, 0.0)
        return runner.start(made, folder, progress=told)

    starting.begin(_BUTTON, made, start)
    watch_started()


def watch_started() -> None:
    """Goes to the run that is being started, if one is, as soon as it is there."""
    try:
        name = starting.follow(_BUTTON, _TITLE)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    if name:
        watch(name)


def watch(name: str) -> NoReturn:
    """Goes to the live page of a run."""
    select(name)
    st.switch_page(st.session_state["pages"]["live"])
