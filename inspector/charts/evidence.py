"""The evidence of a finding: the statistic, the limit that it passed, the window looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from inspector.diagnosis.drawing import Drawing

_BLUE, _RED, _GREY = "#3b7dd8", "#d6413b", "#8a8f98"
_DECADES = 2.5  # of values that a logarithmic axis tells apart better


def evidence_figure(
    drawing: Drawing, *, window: tuple[int, int] | None = None, height: int = 190
) -> go.Figure:
    """A line over steps, or bars, with every limit as a labelled line on the same axis.

    Args:
        drawing: the statistic.
        window: the steps that were looked at; shaded behind a line.
    """
    figure = _over_steps(drawing, window) if drawing.is_line else _bars(drawing)
    logarithmic = _is_log(drawing)
    for value, label in drawing.limits:
        if not logarithmic or value > 0:
            _limit(figure, drawing, value, label)
    figure.update_yaxes(
        type="log" if logarithmic else "linear",
        title={"text": wrapped(drawing.axis), "font": {"size": 12}},
        exponentformat="power",
        rangemode="normal" if logarithmic else "tozero",
        automargin=True,
    )
    if logarithmic:
        figure.update_yaxes(range=_decades(drawing), dtick=max(1, round(_span(drawing) / 4)))
    figure.update_layout(
        height=height, margin={"l": 8, "r": 8, "t": 12, "b": 8}, showlegend=False, bargap=0.35
    )  # fmt: skip
    return figure


def _over_steps(drawing: Drawing, window: tuple[int, int] | None) -> go.Figure:
    figure = go.Figure(
        go.Scatter(
            x=drawing.x,
            y=drawing.y,
            mode="lines" if len(drawing.x) > 12 else "lines+markers",
            line={"color": _BLUE, "width": 2},
            hovertemplate="step %{x}<br>%{y:.3g}<extra></extra>",
        )
    )
    if window is not None and window[1] > window[0]:
        figure.add_vrect(
            x0=window[0], x1=window[1], fillcolor=_BLUE, opacity=0.08, line_width=0, layer="below"
        )
    lost = [step for step, value in zip(drawing.x, drawing.y, strict=True) if value is None]
    if lost:
        figure.add_vline(
            x=lost[0], line={"color": _RED, "dash": "dot", "width": 2},
            annotation={"text": f"NaN or infinity from step {lost[0]}", "font": {"color": _RED}},
        )  # fmt: skip
        figure.add_vrect(
            x0=lost[0], x1=max(drawing.x), fillcolor=_RED, opacity=0.08, line_width=0,
            layer="below",
        )  # fmt: skip
    figure.update_xaxes(title="step")
    return figure


def _bars(drawing: Drawing) -> go.Figure:
    colors = [_RED if at in drawing.marked else _GREY for at in range(len(drawing.x))]
    figure = go.Figure(
        go.Bar(
            x=[shortened(str(name)) for name in drawing.x],
            y=drawing.y,
            marker_color=colors,
            text=["" if value is None else f"{value:.3g}" for value in drawing.y],
            textposition="outside",
            cliponaxis=False,
            customdata=list(drawing.x),
            hovertemplate="%{customdata}<br>%{y:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(type="category", automargin=True)
    return figure


def _limit(figure: go.Figure, drawing: Drawing, value: float, label: str) -> None:
    """A trace rather than a shape: annotations of shapes are misplaced on logarithmic axes."""
    across: Sequence[int | str] = drawing.x
    if drawing.is_line:
        places: list[int | str] = [across[0], across[-1]]
    else:
        places = [shortened(str(name)) for name in across]
    named = label if any(c.isdigit() for c in label) else f"{label} {value:.3g}"
    texts = [""] * (len(places) - 1) + [named]
    figure.add_scatter(
        x=places,
        y=[value] * len(places),
        mode="lines+text" if len(places) > 1 else "markers+text",
        marker={"symbol": "line-ew", "size": 160, "line": {"color": _RED, "width": 2}},
        line={"color": _RED, "dash": "dash", "width": 1.6},
        text=texts,
        textposition="top left" if drawing.is_line else "top center",
        textfont={"color": _RED, "size": 12},
        cliponaxis=False,
        hovertemplate=f"{label}: {value:.4g}<extra></extra>",
    )


def _shown(drawing: Drawing) -> list[float]:
    """Every finite number that is drawn."""
    return [value for value in (*drawing.y, *(one for one, _ in drawing.limits)) if value]


def _is_log(drawing: Drawing) -> bool:
    positive = [value for value in _shown(drawing) if value > 0]
    wide = len(positive) > 1 and max(positive) > 10**_DECADES * min(positive)
    return wide and (drawing.log or not drawing.is_line) and min(_shown(drawing), default=0) > 0


def _decades(drawing: Drawing) -> list[float]:
    """The range of a logarithmic axis: at most twelve decades below the largest value."""
    logs = [math.log10(value) for value in _shown(drawing) if value > 0]
    top, bottom = max(logs), min(logs)
    return [max(bottom, top - 12) - 0.5, top + 0.6]


def _span(drawing: Drawing) -> float:
    low, high = _decades(drawing)
    return high - low


def shortened(name: str) -> str:
    """The end of a long path, which tells modules apart."""
    return name if len(name) <= 18 else "…" + name[-17:]


def wrapped(text: str, width: int = 26) -> str:
    """An axis title in lines of a width."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)
