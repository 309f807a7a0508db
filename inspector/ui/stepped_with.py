"""The part of the Live page about what optimizers step with, besides the learning rate."""

from __future__ import annotations

import streamlit as st

from inspector.charts.boards import settings
from inspector.ui.board import board
from inspector.ui.context import opened
from inspector.views.optimizers import labels


def settings_panel(name: str, *, rank: int) -> None:
    """Folded: momentum and weight decay of each parameter group over the run."""
    with opened(name) as run:
        charts = settings(run.keys(rank=rank), labels(run, rank=rank))
    if not charts:
        return
    folded = st.expander(
        "Momentum and weight decay",
        icon=":material/tune:",
        key=f"settings/{name}",
        on_change="rerun",
    )
    if folded.open:
        with folded:
            board(charts=charts, run=name, key=f"settings-board/{name}", rank=rank)
