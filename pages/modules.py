"""Every module in call order: shapes, dtype, parameters, memory."""

import dataclasses

import streamlit as st

from inspector.ui.context import current_run, escape, is_live
from inspector.ui.health_page import badge
from inspector.ui.tables import is_wide, table_height
from inspector.views import modules as view
from inspector.views.paths import shortened

_LETTERS = 48  # of a module's path, before its beginning is shortened

with current_run() as run:
    table = view.recorded(run)
    missing = view.missing(live=is_live(run))
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.subheader("Modules", width="content")
        badge(run)
        st.page_link(
            st.session_state["pages"]["health"],
            label="What is seen, and what it costs",
            icon=":material/arrow_forward:",
        )

if not table:
    st.info(missing)
    st.stop()

search = st.text_input(
    "Search", placeholder="path, type or shape, such as: conv 64", label_visibility="collapsed"
)
rows = view.matching(table, search)
totals = view.totals(table)
with st.container(horizontal=True, gap="large"):
    for label, text in (
        ("Modules", f"{totals.modules:,}"),
        ("Parameters", f"{totals.parameters:,}"),
        ("Trainable", f"{totals.trainable:,}"),
        ("Parameter memory", view.bytes_text(totals.bytes) or "0 B"),
        ("Outputs of one step", view.bytes_text(totals.output_bytes) or "0 B"),
    ):
        st.metric(label, text, width="content")
if not rows:
    st.info("No module matches the search; clear it to see them all.")
    st.stop()
shown = [
    dataclasses.asdict(row)
    | {
        "path": shortened(row.path, _LETTERS),
        "whole": row.path,
        "bytes": view.bytes_text(row.bytes),
        "output_bytes": view.bytes_text(row.output_bytes),
    }
    for row in rows
]
noted = {"note": "Note"} if any(row.note for row in rows) else {}
whole = {"whole": "Whole path"} if any(row["path"] != row["whole"] for row in shown) else {}
heads = {
    "path": "Module", "type": "Type", **noted, "inputs": "Input shape", "outputs": "Output shape",
    "dtype": "dtype", "parameters": "Parameters", "state": "State", "bytes": "Parameter memory",
    "output_bytes": "Output memory", **whole,
}  # fmt: skip
st.dataframe(
    shown,
    hide_index=True,
    height=table_height(len(shown), most=16, bar=is_wide(shown, heads)),
    column_order=list(heads),
    column_config=heads
    | {
        "path": st.column_config.TextColumn("Module", pinned=True),
        "note": st.column_config.TextColumn("Note", width=170),
        "parameters": st.column_config.NumberColumn("Parameters", format="localized"),
    },
)
for note, paths in view.reasons(rows):  # which the table cuts
    st.caption(f"**{escape(paths)}**: {escape(note)}")
