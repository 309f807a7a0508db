"""Says that a source was edited while a run goes, and shows what the run keeps."""

from __future__ import annotations

import time
from pathlib import Path

import streamlit as st

from inspector.ui.context import escape
from inspector.views.sources import Edited, edited_sources, kept_sources

_SECONDS = 2.0


def source_line(run_path: Path, *, live: bool) -> None:
    """One line under a run with Python of the user's own; nothing for any other run.

    While the run goes on, an edit is noticed within seconds.
    """
    if kept_sources(run_path):
        st.fragment(_line, run_every=_SECONDS if live else None)(run_path, live=live)


def _line(run_path: Path, *, live: bool) -> None:
    kept = kept_sources(run_path)
    edited = edited_sources(run_path)
    with st.container(horizontal=True, vertical_alignment="center", key=f"source-{run_path.name}"):
        for one in edited:
            icon = ":material/edit_note:" if live else ":material/history:"
            st.caption(f"{icon} {escape(sentence(one, live=live))}", width="content")
        with st.popover("Source of this run", type="tertiary", icon=":material/code:"):
            for one in edited:
                if one.difference:
                    st.markdown(f"**What changed in {escape(one.name)}**")
                    st.code(one.difference, language="diff")
            for name, text in kept.items():
                st.markdown(f"**{escape(name)}**, as this run uses it")
                st.code(text, language="python")


def sentence(edited: Edited, *, live: bool) -> str:
    """What happened to a file, and what that means for this run and the next."""
    keeps = "this run keeps what it started with" if live else "this run used the older version"
    if not edited.at:
        return f"{edited.name} is gone; {keeps}."
    clock = time.strftime("%H:%M", time.localtime(edited.at))
    return f"{edited.name} was edited at {clock}; the next run uses the new version; {keeps}."
