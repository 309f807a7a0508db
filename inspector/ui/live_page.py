"""The body of the Live page: the overview of a run, of one of its ranks, and what it recorded."""

from __future__ import annotations

import streamlit as st

from inspector.charts.boards import overview
from inspector.charts.specs import Chart
from inspector.ui.board import board
from inspector.ui.context import current_run, is_live, opened
from inspector.ui.failure import failure_panel
from inspector.ui.own.confusion import confusion_panel
from inspector.ui.own.edited import source_line
from inspector.ui.presets import explain
from inspector.ui.repair import nan_panel
from inspector.ui.speed import speed_panel
from inspector.ui.stepped_with import settings_panel
from inspector.views.optimizers import labels

_REFRESH = "3s"


def live_page() -> None:
    """Draws the page for the run that this tab looks at."""
    with current_run() as run:
        name, config, live, ranks = run.name, run.config, is_live(run), run.ranks
        path = run.path
        recorded = run.events()
        rank = _rank(ranks, name)
        charts = overview(run.keys(rank=rank), labels(run, rank=rank))
    explain(config)
    failure_panel(recorded, config=config)
    nan_panel(name, live=live)
    source_line(path, live=live)
    if live:
        st.fragment(_notice_new, run_every=_REFRESH)(name, rank, charts, len(ranks))
    board(charts=charts, run=name, key=f"overview/{name}", rank=rank)
    st.caption(
        "Drag to zoom, double-click to reset. Vertical lines are events: hover them to read what "
        "was changed."
    )
    speed_panel(name, config, recorded, live=live, rank=rank)
    settings_panel(name, rank=rank)
    wanted = "confusion_matrix" in config.get("metrics", ())
    confusion_panel(name, wanted=wanted, live=live)


def _rank(ranks: list[int], name: str) -> int:
    """The rank whose numbers are shown; a choice only where there is one."""
    first = ranks[0] if ranks else 0
    if len(ranks) < 2:
        return first
    chosen = st.segmented_control(
        "Rank",
        ranks,
        default=first,
        key=f"rank/{name}",
        help="Each process of a distributed run records its own numbers.",
    )
    return first if chosen is None else int(chosen)


def _notice_new(name: str, rank: int, drawn: tuple[Chart, ...], ranks: int) -> None:
    """Draws the page again when a scalar or a rank has appeared that it does not show yet."""
    with opened(name) as run:
        now = overview(run.keys(rank=rank), labels(run, rank=rank))
        new = now != drawn or len(run.ranks) != ranks
    if new:
        st.rerun()
