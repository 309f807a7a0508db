"""Every module in call order: shapes, dtype, parameters, memory."""

import dataclasses

import streamlit as st

from inspector.ui.context import current_run, is_live
from inspector.ui.health_page import badge
from inspector.views import modules as view

with current_run() as run:
    table = view.recorded(run)
    missing = view.missing(live=is_live(run))
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.subheader("Modules", width="content")
        badge(run)
        st.page_link(st.session_state["pages"]["health"], label="What is seen, and what it costs")

if not table:
    st.info(missing)
    st.stop()

search = st.text_input(
    "Search", placeholder="path, type or shape, such as: conv 64", label_visibility="collapsed"
)
rows = view.matching(table, search)
whole = view.totals(table)
with st.container(horizontal=True, gap="large"):
    for label, text in (
        ("Modules", f"{whole.modules:,}"),
        ("Parameters", f"{whole.parameters:,}"),
        ("Trainable", f"{whole.trainable:,}"),
        ("Parameter memory", view.bytes_text(whole.bytes) or "0 B"),
        ("Outputs of one step", view.bytes_text(whole.output_bytes) or "0 B"),
    ):
        st.metric(label, text, width="content")
if not rows:
    st.info("No module matches the search; clear it to see them all.")
    st.stop()
st.dataframe(
    [
        dataclasses.asdict(row)
        | {"bytes": view.bytes_text(row.bytes), "output_bytes": view.bytes_text(row.output_bytes)}
        for row in rows
    ],
    hide_index=True,
    height=min(36 * (len(rows) + 1) + 4, 620),
    column_config={
        "order": None,
        "path": st.column_config.TextColumn("Module", pinned=True),
        "type": st.column_config.TextColumn("Type"),
        "inputs": st.column_config.TextColumn("Input shape"),
        "outputs": st.column_config.TextColumn("Output shape"),
        "dtype": st.column_config.TextColumn("dtype"),
        "parameters": st.column_config.NumberColumn("Parameters", format="localized"),
        "trainable": None,
        "state": st.column_config.TextColumn("State"),
        "bytes": st.column_config.TextColumn("Parameter memory"),
        "output_bytes": st.column_config.TextColumn("Output memory"),
        "note": st.column_config.TextColumn("Note"),
    },
)
