"""Figures of what a snippet drew (see ``inspector.lab.plots``)."""

from __future__ import annotations

import importlib
import math
from typing import Any

import plotly.graph_objects as go

from inspector.numerals import short

# Plotly looks into pandas while another thread may be half-way through importing it: this waits.
importlib.import_module("pandas")

HEIGHT = 290
_LEGEND_ROW = 22
_LEGEND_LINE = 45
_LETTER = 7
_WIDTH = 380  # of the page's column on a screen of 1280, all in CSS pixels
COLOURS = ("#4c6ef5", "#f76707", "#2f9e44", "#be4bdb", "#1098ad", "#e64980", "#f59f00", "#868e96")


def figure(plot: dict[str, Any], *, scale: float = 1.0) -> go.Figure:
    """The figure of one plot.

    Args:
        scale: of all type, for a projector.

    Raises:
        KeyError: its kind is unknown.
    """
    drawn = _KINDS[plot["kind"]](plot)
    names = [trace.name for trace in drawn.data if trace.type == "scatter"]
    # Plotly makes all columns of a legend as wide as the longest name.
    columns = max(_WIDTH // (_LEGEND_LINE + _LETTER * max(map(len, names), default=0)), 1)
    rows = -(-len(names) // columns) if len(names) > 1 else 0
    drawn.update_layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        title={"text": _text(plot["title"]), "font_size": 15 * scale},
        height=round((HEIGHT + _LEGEND_ROW * rows) * scale),
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.0,
                "font_size": 13 * scale},
    )  # fmt: skip
    for axes in (drawn.update_xaxes, drawn.update_yaxes):
        axes(tickfont_size=12 * scale, title_font_size=13 * scale)
    return drawn


def _lines(plot: dict[str, Any]) -> go.Figure:
    drawn = go.Figure()
    for number, (name, values) in enumerate(plot["series"].items()):
        x = plot["x"] or list(range(len(values)))
        drawn.add_scatter(
            x=x[: len(values)], y=values, name=_text(name), line_color=_colour(number),
            mode="lines+markers" if len(values) <= 12 else "lines",
        )  # fmt: skip
    drawn.update_xaxes(title=_text(plot["x_title"]))
    drawn.update_yaxes(title=_text(plot["y_title"]))
    if plot["log"]:
        drawn.update_yaxes(type="log", exponentformat="power")
    drawn.update_layout(showlegend=len(plot["series"]) > 1)
    return drawn


def _vectors(plot: dict[str, Any]) -> go.Figure:
    drawn = go.Figure()
    for number, (name, (x, y)) in enumerate(plot["arrows"].items()):
        colour = _colour(number)
        # The marker turns with the line: an arrow head that keeps its size when zoomed.
        drawn.add_scatter(
            x=[0, x], y=[0, y], name=f"{_text(name)} ({short(x, 3)}, {short(y, 3)})",
            mode="lines+markers",
            line={"width": 4, "color": colour},
            marker={"symbol": "arrow", "size": [0, 18], "angleref": "previous", "color": colour},
        )  # fmt: skip
    reach = max((abs(part) for arrow in plot["arrows"].values() for part in arrow), default=1.0)
    low = min((part for arrow in plot["arrows"].values() for part in arrow), default=0.0)
    start = -0.12 * reach if low >= 0 else -1.12 * reach
    drawn.update_xaxes(range=[start, 1.12 * reach], zeroline=True)
    drawn.update_yaxes(range=[start, 1.12 * reach], zeroline=True, scaleanchor="x")
    return drawn


def _heatmap(plot: dict[str, Any]) -> go.Figure:
    matrix = plot["matrix"]
    drawn = go.Figure(
        go.Heatmap(
            z=matrix, colorscale="Viridis",
            hovertemplate=f"{_text(plot['y_title'])} %{{y}}, {_text(plot['x_title'])} %{{x}}"
            "<br>%{z:.4g}<extra></extra>",
        )
    )  # fmt: skip
    drawn.update_xaxes(title=_text(plot["x_title"]), constrain="domain")
    drawn.update_yaxes(
        title=_text(plot["y_title"]), autorange="reversed", scaleanchor="x", constrain="domain"
    )
    return drawn


def _paths(plot: dict[str, Any]) -> go.Figure:
    drawn = go.Figure()
    if plot["surface"]:
        drawn.add_contour(**_contours(plot["surface"]))
        # A track that leaves the sampled plane would shrink everything else to a point.
        drawn.update_xaxes(range=[plot["surface"]["x"][0], plot["surface"]["x"][-1]])
        drawn.update_yaxes(range=[plot["surface"]["y"][0], plot["surface"]["y"][-1]])
    for number, (name, track) in enumerate(plot["tracks"].items()):
        x, y = zip(*track, strict=True)
        size = [5] * (len(track) - 1) + [11]
        drawn.add_scatter(
            x=x, y=y, name=_text(name), mode="lines+markers", line_color=_colour(number),
            marker={"size": size, "line": {"width": 0}},
        )  # fmt: skip
    for name, places in plot["points"].items():
        x, y = zip(*places, strict=True)
        drawn.add_scatter(
            x=x, y=y, name=_text(name), mode="markers",
            marker={"symbol": "x", "size": 13, "color": "#e03131"},
        )  # fmt: skip
    return drawn


def _contours(surface: dict[str, Any]) -> dict[str, Any]:
    """Contour lines at heights that grow evenly in the root, so that a flat valley shows too."""
    heights = [height for row in surface["z"] for height in row if math.isfinite(height)]
    low = min(heights, default=0.0)
    roots = [[math.sqrt(max(h - low, 0.0)) for h in row] for row in surface["z"]]
    return {
        "x": surface["x"], "y": surface["y"], "z": roots, "customdata": surface["z"],
        "colorscale": "Greys", "opacity": 0.45, "showscale": False, "ncontours": 18,
        "contours": {"coloring": "lines"},
        "hovertemplate": "height %{customdata:.4g}<extra></extra>",
        "showlegend": False,
    }  # fmt: skip


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _text(text: Any) -> str:
    """A name as Plotly shows it verbatim: Plotly reads some HTML."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_KINDS = {"lines": _lines, "vectors": _vectors, "heatmap": _heatmap, "paths": _paths}
