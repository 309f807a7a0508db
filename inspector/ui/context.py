"""Which run a browser tab looks at, and where runs are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from inspector.errors import StoreError
from inspector.exports.imported import look
from inspector.server import settings
from inspector.store.layout import run_path
from inspector.store.reader import Run, RunSummary, list_runs

LIVE = ("running", "paused")


def runs_dir() -> Path:
    """The folder whose runs the app shows, as the server was told at its start."""
    return settings.current().runs_dir


def summaries() -> list[RunSummary]:
    """All runs, newest first; empty when the folder does not exist yet.

    TensorBoard's event files among them are taken up in the background.
    """
    look(runs_dir())
    return list_runs(runs_dir())


def select(name: str) -> None:
    """Makes this tab look at a run; the link in the address bar reopens it."""
    st.session_state["run"] = name


def selected(runs: list[RunSummary]) -> str | None:
    """Name of the run this tab looks at: chosen here, named in the link, or the newest."""
    names = [summary.name for summary in runs]
    for wanted in (st.session_state.get("run"), st.query_params.get("run")):
        if wanted in names:
            return str(wanted)
    alive = [summary.name for summary in runs if summary.status in LIVE]
    return next(iter(alive or names), None)


@contextmanager
def current_run() -> Iterator[Run]:
    """The run this tab looks at; the page ends with a sentence when there is none."""
    name = st.session_state.get("run")
    if name is None:
        st.info("Nothing has been recorded yet: start a run on the Start page.")
        st.stop()
    with opened(name) as run:
        yield run


def is_live(run: Run) -> bool:
    """Whether the run is still going, and so can be steered."""
    return run.status in LIVE


@contextmanager
def opened(name: str) -> Iterator[Run]:
    """The run, closed afterwards; a run that cannot be read ends the page with a sentence."""
    try:
        run = Run(run_path(runs_dir(), name))
    except StoreError as error:
        st.error(escape(str(error)))
        st.stop()
    with run:
        yield run


def escape(text: str) -> str:
    """Text as Markdown that shows it verbatim; names from models and files are never markup."""
    return "".join(f"\\{char}" if char in _MARKDOWN else char for char in text)


_MARKDOWN = frozenset("\\`*_{}[]()#+-.!|<>~$:&^")
