"""The autograd graph of a step's loss, folded by module."""

import streamlit as st

from inspector.ui.context import current_run, is_live
from inspector.ui.graph_page import render

with current_run() as run:
    render(run)
    captured = run.documents("graph")
    live = is_live(run)


@st.fragment(run_every="1s")
def follow() -> None:
    """Shows a new graph as soon as the run has stored it."""
    with current_run() as run:
        if run.documents("graph") != captured:
            st.rerun()


if live:
    follow()
