"""Every module in call order: shapes, dtype, parameters, memory."""

import dataclasses

import streamlit as st

from inspector.ui.context import current_run
from inspector.views import modules as view

st.subheader("Modules")
with current_run() as run:
    table = view.rows(run.document("modules"))

if not table:
    st.info("The modules appear after the first step.")
    st.stop()

search = st.text_input(
    "Search", placeholder="path, type or shape, such as: conv 64", label_visibility="collapsed"
)
rows = view.matching(table, search)
own = [row for row in table if "#" not in row.path]
parameters = sum(row.parameters for row in own)
with st.container(horizontal=True, gap="large"):
    st.metric("Modules", f"{len(own):,}", width="content")
    st.metric("Parameters", f"{parameters:,}", width="content")
    st.metric("Trainable", f"{sum(row.trainable for row in own):,}", width="content")
    st.metric("Parameter memory", view.bytes_text(sum(row.bytes for row in own)), width="content")
    st.metric(
        "Outputs of one step", view.bytes_text(sum(row.output_bytes for row in table)),
        width="content",
    )  # fmt: skip
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
