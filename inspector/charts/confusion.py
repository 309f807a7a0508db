"""A confusion matrix as a figure: true classes down, predicted ones across."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

_WRITTEN = 20  # classes up to which every count is written into its cell
_SIDE = 30  # pixels of a cell
_FROM_NOTHING = [[0, "rgba(64, 110, 230, 0.04)"], [1, "rgba(64, 110, 230, 0.7)"]]  # on any theme


def confusion_figure(document: dict[str, Any], *, dark: bool = False) -> go.Figure:
    """A document ``confusion_matrix`` (``classes``, ``counts``); colour is the share of a row.

    Args:
        dark: whether it is drawn on a dark page, for the counts to be legible.
    """
    counts: list[list[int]] = document["counts"]
    names = [str(name) for name in document["classes"]]
    names += [str(place) for place in range(len(names), len(counts))]
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=names,
            y=names,
            text=[[str(count or "") for count in row] for row in counts],
            textfont={"color": "#e6eaf2" if dark else "#1f2937"},
            texttemplate="%{text}" if len(counts) <= _WRITTEN else None,
            hovertext=counts,
            hovertemplate="true %{y}, predicted %{x}: %{hovertext} (%{z:.1%} of the row)"
            "<extra></extra>",
            zmin=0,
            zmax=1,
            colorscale=_FROM_NOTHING,
            colorbar={"title": "share of row", "tickformat": ".0%", "thickness": 12},
        )
    )
    figure.update_layout(
        height=min(max(_SIDE * len(counts) + 110, 240), 640),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": "predicted", "type": "category", "constrain": "domain"},
        yaxis={"title": "true", "type": "category", "autorange": "reversed", "scaleanchor": "x"},
        xaxis_showgrid=False,
        yaxis_showgrid=False,
    )
    return figure
