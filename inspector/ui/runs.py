"""Starting runs and moving between them; the only door from the pages to the trainer."""

from __future__ import annotations

from typing import Any, NoReturn

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape, runs_dir, select

_STOP_SECONDS = 30.0


def start_and_watch(config: RunConfig | dict[str, Any]) -> None:
    """Starts a run and goes to its live page; a refusal is shown where the button was pressed.

    A run that trains in this process is stopped first: there is room for one.
    """
    from inspector.training import runner  # imports torch: only when something is to be trained

    try:
        made = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
        with st.status("Building the model and trying one batch …") as status:
            bar = st.empty()

            def progress(text: str, share: float) -> None:
                status.update(label=text)
                bar.progress(min(max(share, 0.0), 1.0))

            if runner.current() is not None:
                status.update(label="Stopping the run that is going …")
                runner.stop()
                runner.join(_STOP_SECONDS)
            name = runner.start(made, runs_dir(), progress=progress)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    watch(name)


def watch(name: str) -> NoReturn:
    """Goes to the live page of a run."""
    select(name)
    st.switch_page(st.session_state["pages"]["live"])
