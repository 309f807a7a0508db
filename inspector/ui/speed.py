"""The part of the Live page about speed: what a step takes, and what of it is waiting for data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import streamlit as st

from inspector.charts.boards import speed
from inspector.events import RunStarted, StoredEvent
from inspector.ui.board import board
from inspector.ui.context import escape, opened
from inspector.ui.folded import folded
from inspector.views.waiting import advice, is_measured, waited

_REFRESH = "3s"
_MEASURED = (
    "Waiting for data is the time that the loop waited for its batches: from asking the loader to "
    "having them. Copying a batch to the device is not part of it; a validation counts towards the "
    "step after it."
)
_UNKNOWN = (
    "Waiting for data: n/a. This script has not said how long it waits, and the time between a "
    "step and the next forward pass is more than that. Iterate over `watch.batches(loader)` and it "
    "is measured, or record it: `watch.record(data_seconds=…)`."
)
_IMPORTED = "Waiting for data: n/a. This run did not record how long it waited."


def speed_panel(
    name: str, config: dict[str, Any], events: Iterable[StoredEvent], *, live: bool, rank: int
) -> None:
    """Says when waiting for data dominates, and what to do; folded, the step time over the run."""
    device = next((e.event.device for e in events if isinstance(e.event, RunStarted)), "")
    say = st.fragment(_say, run_every=_REFRESH) if live else _say
    say(name, config, device, rank)
    charts = partial(_charts, name, rank)
    folded("Speed and waiting for data", charts, icon=":material/speed:", key=f"speed/{name}")


def _say(name: str, config: dict[str, Any], device: str, rank: int) -> None:
    with opened(name) as run:
        wait = waited(run, rank=rank)
    if wait is not None and wait.dominates:
        st.info(escape(advice(wait, config, device=device)), icon=":material/hourglass_top:")


def _charts(name: str, rank: int) -> None:
    with opened(name) as run:
        measured, kind = is_measured(run, rank=rank), run.meta.get("kind")
    board(charts=speed(), run=name, key=f"speed-board/{name}", rank=rank)
    st.caption(_MEASURED if measured else _UNKNOWN if kind == "watched" else _IMPORTED)
