"""All runs, live and finished, newest first."""

import streamlit as st

from inspector.ui import context, runs
from inspector.views.runs import rows

st.subheader("Runs")


@st.fragment(run_every="3s")
def table() -> None:
    summaries = context.summaries()
    if not summaries:
        st.info(
            "No runs in this folder yet. Start one on the Start page, or call "
            "`inspector.watch(model, optimizer)` in a script."
        )
        return
    listed = rows(summaries)
    picked = st.dataframe(
        listed,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key="runs_table",
        height=min(36 * (len(listed) + 1) + 4, 640),
        column_config={
            "name": st.column_config.TextColumn("Run", pinned=True),
            "status": st.column_config.TextColumn("Status"),
            "model": st.column_config.TextColumn("Model"),
            "data": st.column_config.TextColumn("Data"),
            "optimizer": st.column_config.TextColumn("Optimizer"),
            "steps": st.column_config.NumberColumn("Steps", format="localized"),
            "created": st.column_config.DatetimeColumn("Started", format="YYYY-MM-DD HH:mm:ss"),
            "note": st.column_config.TextColumn("Note", width="large"),
        },
    )
    chosen = picked.selection.rows
    if chosen:
        context.select(summaries[chosen[0]].name)
        st.session_state["open_run"] = True
        st.rerun()


st.caption("Click the box at the left of a row to open that run.")
table()
if st.session_state.pop("open_run", False):
    runs.watch(st.session_state["run"])
