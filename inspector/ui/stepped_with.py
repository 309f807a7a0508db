"""The part of the Live page about what optimizers step with, besides the learning rate."""

from __future__ import annotations

from functools import partial

from inspector.charts.boards import settings
from inspector.ui.board import board
from inspector.ui.context import opened
from inspector.ui.folded import folded
from inspector.views.optimizers import labels


def settings_panel(name: str, *, rank: int) -> None:
    """Folded: momentum and weight decay of each parameter group over the run."""
    with opened(name) as run:
        charts = settings(run.keys(rank=rank), labels(run, rank=rank))
    if not charts:
        return
    drawn = partial(board, charts, run=name, key=f"settings-board/{name}", rank=rank)
    folded("Momentum and weight decay", drawn, icon=":material/tune:", key=f"settings/{name}")
