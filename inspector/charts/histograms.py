"""Distributions over the steps of a run as a Plotly figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

if TYPE_CHECKING:
    from inspector.store.reader import Histogram

BINS = 64


def distribution(histograms: Sequence[Histogram], *, title: str, height: int = 260) -> go.Figure:
    """A heat map of values against steps; colour is the share of values within a bin of a step."""
    edges, share = on_common_bins(histograms)
    figure = go.Figure(
        go.Heatmap(
            x=[histogram.step for histogram in histograms],
            y=(edges[:-1] + edges[1:]) / 2,
            z=share.T,
            colorscale="Cividis",
            showscale=False,
            hovertemplate="step %{x}<br>value %{y:.3g}<br>share %{z:.1%}<extra></extra>",
        )
    )
    _dress(figure, title, height)
    figure.update_xaxes(title="step")
    return figure


def newest(histogram: Histogram, *, title: str, height: int = 260) -> go.Figure:
    """The newest distribution as bars: number of values in each bin."""
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    figure = go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=histogram.counts,
            width=np.diff(edges),
            hovertemplate="value %{x:.3g}<br>%{y} values<extra></extra>",
        )
    )
    _dress(figure, f"{title}, step {histogram.step}", height)
    figure.update_layout(bargap=0)
    return figure


def on_common_bins(
    histograms: Sequence[Histogram], bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Histograms with bounds of their own, spread over bins that all share.

    Within its bin a value may lie anywhere, so counts are split in proportion to the overlap.

    Returns:
        Bin edges, ``[bins + 1]``, and the share of values, ``[len(histograms), bins]``.
    """
    low = min(histogram.low for histogram in histograms)
    high = max(histogram.high for histogram in histograms)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    share = np.zeros((len(histograms), bins))
    for row, histogram in enumerate(histograms):
        counts = np.asarray(histogram.counts, dtype=np.float64)
        total = counts.sum()
        if not total:
            continue
        if histogram.high > histogram.low:
            own = np.linspace(histogram.low, histogram.high, len(counts) + 1)
            cumulative = np.concatenate(([0.0], np.cumsum(counts))) / total
            share[row] = np.diff(np.interp(edges, own, cumulative, left=0.0, right=1.0))
        else:
            share[row, min(int(np.searchsorted(edges, histogram.low, "right")) - 1, bins - 1)] = 1
    return edges, share


def _dress(figure: go.Figure, title: str, height: int) -> None:
    margin: dict[str, Any] = {"l": 8, "r": 8, "t": 34, "b": 8}
    figure.update_layout(title={"text": title, "font_size": 14}, height=height, margin=margin)
