"""Live charts on a page: ``board`` and ``strip``, updated in place over the app's own WebSocket.

A script run only says which run and which charts; the numbers never pass through Streamlit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspector.charts.specs import Chart, number, to_dict
from inspector.ui.components import component

HOLDER = "inspector"
STYLES = ("vendor/uPlot.min.css", "live.css")
_STRIP_QUANTITIES = ("epoch", "step_time", "samples_per_s", "backward_passes")


@dataclass(frozen=True, slots=True)
class Selection:
    """A row of a heat map that was clicked; ``step`` is None for a click on its label."""

    chart: str
    quantity: str
    subject: str
    step: int | None


_board = component("board", HOLDER, "live.js", view="board", styles=STYLES)
_strip = component("strip", HOLDER, "live.js", view="strip", styles=STYLES)


def board(
    charts: Sequence[Chart], *, run: str, key: str, max_points: int = 2000, rank: int = 0
) -> Selection | None:
    """Draws charts of a run, live where it is going on.

    Args:
        charts: what is drawn, see ``inspector.charts``.
        run: name of the run.
        key: keeps zoom and toggles over script runs; unique on the page.
        rank: whose numbers are drawn.
        max_points: most points of a line before it is thinned (minimum and maximum are kept).

    Returns:
        The heat-map row that was clicked just now, else None.
    """
    data = {
        "run": run,
        "charts": [to_dict(chart) for chart in charts],
        "max_points": max_points,
        "rank": rank,
    }
    result = _board(key=key, data=data, on_select_change=_nothing)
    return _selection(result.select)


def strip(*, run: str, key: str) -> None:
    """Draws the slim row with the run's state, progress, speed, controls and warnings."""
    charts = [to_dict(number(quantity)) for quantity in _STRIP_QUANTITIES]
    _strip(key=key, data={"run": run, "charts": charts})


def _selection(value: Any) -> Selection | None:
    if not isinstance(value, dict):
        return None
    step = value.get("step")
    return Selection(
        chart=str(value.get("chart", "")),
        quantity=str(value.get("quantity", "")),
        subject=str(value.get("subject", "")),
        step=int(step) if isinstance(step, (int, float)) else None,
    )


def _nothing() -> None:
    """The trigger needs a callback; the value is read from the result."""
