"""Starting runs and moving between them; the only door from the pages to the trainer."""

from __future__ import annotations

from typing import Any, NoReturn

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape, runs_dir, select


def start_and_watch(config: RunConfig | dict[str, Any]) -> None:
    """Starts a run and goes to its live page; a refusal is shown where the button was pressed."""
    from inspector.training import runner  # imports torch: only when something is to be trained

    try:
        made = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
        with st.spinner("Building the model and trying one batch …"):
            name = runner.start(made, runs_dir())
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    watch(name)


def watch(name: str) -> NoReturn:
    """Goes to the live page of a run."""
    select(name)
    st.switch_page(st.session_state["pages"]["live"])
