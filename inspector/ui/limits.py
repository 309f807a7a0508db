"""The limits of the rules as a table that can be edited; they hold for every run of the folder."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.diagnosis.limits import FILE, read_limits, write_limits
from inspector.diagnosis.registry import thresholds
from inspector.errors import ConfigError
from inspector.ui.context import escape, runs_dir
from inspector.views.findings import heading


def limits_panel() -> None:
    """Draws the table, and buttons that keep it or go back to the defaults."""
    usual = thresholds()
    try:
        changed = read_limits(runs_dir())
    except ConfigError:
        changed = {}  # the page has said so
    rows: list[dict[str, Any]] = [
        {
            "Finding": heading(name.partition(".")[0]),
            "Limit": name.partition(".")[2],
            "Value": changed.get(name, value),
            "Default": value,
        }
        for name, value in usual.items()
    ]
    st.caption(
        "What each limit compares is told in the docstring of its rule and in docs/diagnosis.md."
        f" Changes are kept in {FILE} beside the runs."
    )
    version = st.session_state.setdefault("limits_version", 0)
    edited = st.data_editor(
        rows,
        key=f"limits/{version}",
        hide_index=True,
        disabled=("Finding", "Limit", "Default"),
        column_config={"Value": st.column_config.NumberColumn(format="%.6g", required=True),
                       "Default": st.column_config.NumberColumn(format="%.6g")},
    )  # fmt: skip
    wanted = {
        name: float(row["Value"])
        for (name, value), row in zip(usual.items(), edited, strict=True)
        if row["Value"] is not None and float(row["Value"]) != value
    }
    with st.container(horizontal=True):
        st.button(
            "Keep these limits",
            key="limits-keep",
            type="primary",
            disabled=wanted == changed,
            on_click=_write,
            args=(wanted,),
        )
        st.button("Defaults", key="limits-reset", disabled=not changed, on_click=_write, args=({},))


def _write(wanted: dict[str, float]) -> None:
    try:
        write_limits(runs_dir(), wanted)
    except OSError as error:
        st.toast(escape(f"The limits could not be kept: {error.strerror}."), icon="⚠️")
        return
    st.session_state["limits_version"] += 1
