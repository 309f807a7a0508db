"""Everything that happened to the run, newest first."""

import streamlit as st

from inspector.ui.context import current_run, is_live
from inspector.ui.event_list import event_list
from inspector.ui.failure import failure_panel
from inspector.views import events as view

_MOST = 200  # a run of a thousand epochs has as many events

with current_run() as run:
    recorded = run.events()
    live = is_live(run)
    name = run.name

st.subheader("Events")
failure_panel(recorded)
titles = view.titles(recorded)
kinds = st.pills("Show only", titles, selection_mode="multi", label_visibility="collapsed")
key = f"events/all/{name}"


@st.fragment(run_every="2s" if live else None)
def table() -> None:
    with current_run() as run:
        rows = view.rows(run.events(), kinds=kinds)
    if not rows:
        st.info("Nothing of that kind has happened.")
        return
    whole = len(rows) <= _MOST or st.session_state.get(key, False)
    event_list(rows if whole else rows[:_MOST])
    if not whole:
        st.button(
            f"Show all {len(rows):,}", key="events/all", on_click=st.session_state.update,
            kwargs={key: True},
        )  # fmt: skip


table()
