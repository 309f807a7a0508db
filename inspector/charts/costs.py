"""What watching costs over a run, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from inspector.charts.evidence import AMBER, BLUE


def cost_figure(
    windows: Sequence[tuple[int, int, float]], *, budget: float | None = None
) -> go.Figure:
    """Shares of the time that watching took, a point for each stretch of steps.

    Args:
        windows: first step, last step and share of each stretch.
        budget: the share that the schedule keeps to; None where it keeps to none.
    """
    figure = go.Figure(
        go.Scatter(
            x=[(first + last) / 2 for first, last, _ in windows],
            y=[share for *_, share in windows],
            customdata=[(first, last) for first, last, _ in windows],
            mode="lines+markers",
            line={"color": BLUE, "width": 2},
            marker={"size": 5},
            hovertemplate="steps %{customdata[0]:,} to %{customdata[1]:,}: %{y:.1%} of their time"
            "<extra></extra>",
        )
    )
    if budget is not None:
        figure.add_hline(
            y=budget,
            line={"color": AMBER, "dash": "dash", "width": 1.5},
            annotation={
                "text": f"budget {budget:.0%}", "x": 1, "xanchor": "left", "yanchor": "middle",
                "font": {"color": AMBER},
            },
        )  # fmt: skip
    highest = max((share for *_, share in windows), default=0.0)
    figure.update_layout(
        height=240,
        margin={"l": 10, "r": 10 if budget is None else 80, "t": 6, "b": 10},
        xaxis={"title": "step", "showgrid": False},
        yaxis={"tickformat": ".0%" if highest > 0.05 else ".1%",
               "range": [0, 1.15 * max(highest, 1.2 * (budget or 0.0), 0.01)]},
    )  # fmt: skip
    return figure
