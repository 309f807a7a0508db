"""Everything that happened to the run, newest first."""

import dataclasses

import streamlit as st

from inspector.ui.context import current_run, is_live
from inspector.ui.failure import failure_panel
from inspector.ui.tables import table_height
from inspector.views import events as view

with current_run() as run:
    recorded = run.events()
    live = is_live(run)

st.subheader("Events")
failure_panel(recorded)
titles = view.titles(recorded)
kinds = st.pills("Show only", titles, selection_mode="multi", label_visibility="collapsed")


@st.fragment(run_every="2s" if live else None)
def table() -> None:
    with current_run() as run:
        rows = view.rows(run.events(), kinds=kinds)
    if not rows:
        st.info("Nothing of that kind has happened.")
        return
    st.dataframe(
        [dataclasses.asdict(row) for row in rows],
        hide_index=True,
        height=table_height(len(rows), most=17),
        # The words are beside the step: a telephone has no room for more.
        column_order=("step", "text", "kind", "time", "level"),
        column_config={
            "step": st.column_config.NumberColumn("Step", width=70, format="localized"),
            "text": st.column_config.TextColumn("In words", width=590),
            "kind": st.column_config.TextColumn("What", width=100),
            "time": st.column_config.TextColumn("Time", width=72),
            "level": st.column_config.TextColumn("Level", width=68),
        },
    )


table()
