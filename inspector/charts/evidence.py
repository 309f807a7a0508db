"""The evidence of a finding: the statistic, the limit that it passed, the window looked at."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from inspector.diagnosis.drawing import Drawing
from inspector.numerals import short
from inspector.views.paths import shortened

BLUE, RED, GREY, AMBER = "#3b7dd8", "#d6413b", "#8a8f98", "#c77d0a"
_LABELLED = 12  # bars whose values can be written above them
_DECADES = 2.5  # of values that a logarithmic axis tells apart better
_LEANING = 50  # pixels that names of more bars take
_LETTERS = 18  # of the name of a bar
_LINE = 16  # pixels that a number above a bar takes
_AXIS = 0.65  # of a figure's height that is left to its axis
_BESIDE = 10  # steps that are drawn after the last number
_SLIVER = 0.1  # decades of a bar that is below a logarithmic axis, such as that of an exact zero


def evidence_figure(
    drawing: Drawing, *, window: tuple[int, int] | None = None, height: int = 200
) -> go.Figure:
    """A line over steps, or bars, with every limit as a labelled line on the same axis.

    Args:
        drawing: the statistic.
        window: the steps that were looked at; shaded behind a line.
    """
    logarithmic = _is_log(drawing)
    figure = _over_steps(drawing, window) if drawing.is_line else _bars(drawing, logarithmic)
    limits = [one for one in sorted(drawing.limits) if one[0] > 0 or not logarithmic]
    if not drawing.is_line:
        span = _span(drawing) if logarithmic else max((*_shown(drawing), 0)) or 1.0
        _lift(figure, [value for value, _ in limits], span * _LINE / (_AXIS * height), logarithmic)
    for number, (value, label) in enumerate(limits):
        _limit(figure, value, label, logarithmic=logarithmic, shift=_shift(number, len(limits)))
    figure.update_yaxes(
        type="log" if logarithmic else "linear",
        title={"text": wrapped(drawing.axis), "font": {"size": 11}},
        exponentformat="power",
        rangemode="normal" if logarithmic or drawing.is_line else "tozero",
        automargin=True,
    )
    if not logarithmic and limits:
        figure.add_scatter(  # lines that are shapes do not widen the axis
            x=[drawing.x[0] if drawing.is_line else 0] * len(limits),
            y=[value for value, _ in limits],
            mode="markers", marker={"opacity": 0}, hoverinfo="skip",
        )  # fmt: skip
    if logarithmic:
        figure.update_yaxes(range=_decades(drawing), dtick=max(1, round(_span(drawing) / 4)))
    many = not drawing.is_line and len(drawing.x) > _LABELLED
    figure.update_layout(
        height=height + _LEANING * many,
        margin={"l": 8, "r": 120 if limits else 8, "t": 14, "b": 8},
        showlegend=False,
        bargap=0.35,
    )  # fmt: skip
    return figure


def _over_steps(drawing: Drawing, window: tuple[int, int] | None) -> go.Figure:
    figure = go.Figure(
        go.Scatter(
            x=drawing.x,
            y=drawing.y,
            mode="lines" if sum(y is not None for y in drawing.y) > 20 else "lines+markers",
            line={"color": BLUE, "width": 2},
            hovertemplate="step %{x}<br>%{y:.3g}<extra></extra>",
        )
    )
    if window is not None and window[1] > window[0]:
        figure.add_vrect(
            x0=window[0], x1=window[1], fillcolor=BLUE, opacity=0.08, line_width=0, layer="below"
        )
    lost = [int(drawing.x[at]) for at, value in enumerate(drawing.y) if value is None]
    first, last = _steps(drawing, window)
    if lost:
        stays = drawing.y[-1] is None
        if stays:  # a thousand steps of nothing would leave no room for the few that tell
            last = min(last, lost[0] + max(_BESIDE, (lost[0] - first) // 2))
        word = "from" if stays else "at" if len(lost) == 1 else "first at"
        late = 2 * (lost[0] - first) > last - first  # there is more room at the left
        figure.add_vline(
            x=lost[0], line={"color": RED, "dash": "dot", "width": 2},
            annotation={"text": f"NaN or infinity {word} step {lost[0]}", "font": {"color": RED},
                        "xanchor": "right" if late else "left", "xshift": -5 if late else 5},
        )  # fmt: skip
        figure.add_vrect(
            x0=lost[0], x1=max(last, lost[0]) if stays else lost[-1], fillcolor=RED, opacity=0.08,
            line_width=0, layer="below",
        )  # fmt: skip
    room = 0.02 * max(last - first, 1)
    figure.update_xaxes(title="step", range=[first - room, last + room])
    return figure


def _steps(drawing: Drawing, window: tuple[int, int] | None) -> tuple[int, int]:
    """From the first to the last step of the line and of the window."""
    steps = [int(step) for step in (*drawing.x[:1], *drawing.x[-1:], *(window or ()))]
    return min(steps), max(steps)


def _bars(drawing: Drawing, logarithmic: bool) -> go.Figure:
    """One bar each, by position: two long names may be shortened to the same letters."""
    low = 10 ** (_decades(drawing)[0] + _SLIVER) if logarithmic else -math.inf
    colors = [RED if at in drawing.marked else GREY for at in range(len(drawing.x))]
    few = len(drawing.x) <= _LABELLED
    texts = [
        "" if value is None or not (few or at in drawing.marked) else _written(value)
        for at, value in enumerate(drawing.y)
    ]
    figure = go.Figure(
        go.Bar(
            x=list(range(len(drawing.x))),
            y=[None if value is None else max(value, low) for value in drawing.y],
            width=0.8 * min(1.0, len(drawing.x) / 4),  # a lone bar is no wall
            marker_color=colors,
            text=texts,
            textposition="outside",
            textfont={"size": 11, "color": colors},
            constraintext="none",
            cliponaxis=False,
            customdata=list(zip(drawing.x, drawing.y, strict=True)),
            hovertemplate="%{customdata[0]}<br>%{customdata[1]:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(
        tickvals=list(range(len(drawing.x))),
        ticktext=[shortened(str(name), _LETTERS) for name in drawing.x],
        title={"text": f"and {drawing.rest:,} more" if drawing.rest else "", "font": {"size": 11}},
        autotickangles=[0, -30, -90],  # a name that leans ends at its bar: none leaves the chart
        showgrid=False, zeroline=False, automargin=True,
    )  # fmt: skip
    return figure


def _lift(figure: go.Figure, limits: list[float], room: float, logarithmic: bool) -> None:
    """Numbers that a line of a limit would strike through stand above that line."""
    place = math.log10 if logarithmic else float
    (bars,) = figure.data
    texts = list(bars.text)
    for at, (top, text, color) in enumerate(zip(bars.y, texts, bars.marker.color, strict=True)):
        above = foot = place(top) if text else math.inf
        for limit in map(place, limits):
            if above - room / 8 <= limit <= above + room:
                above = limit
        if above > foot:
            texts[at] = ""
            figure.add_annotation(
                x=at, y=above, text=text, showarrow=False, yanchor="bottom",
                font={"size": 11, "color": color},
            )  # fmt: skip
    bars.text = texts


def _limit(figure: go.Figure, value: float, label: str, *, logarithmic: bool, shift: int) -> None:
    """A dashed line across the chart; its label stands beside it, where it hides nothing."""
    line = {"color": AMBER, "dash": "dash", "width": 2}
    figure.add_shape(type="line", xref="paper", x0=0, x1=1, y0=value, y1=value, line=line)
    figure.add_annotation(
        # Unlike shapes, annotations on a logarithmic axis stand at the logarithm.
        y=math.log10(value) if logarithmic else value,
        xref="paper", x=1, xanchor="left", yshift=shift, showarrow=False, align="left",
        text=wrapped(label, 18), font={"color": AMBER, "size": 12},
    )  # fmt: skip


def _shift(number: int, count: int) -> int:
    """Labels of several lines are moved apart, for lines may be close together."""
    return 0 if count < 2 else 10 * (2 * number - count + 1)


def _written(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else short(value, 3)


def _shown(drawing: Drawing) -> list[float]:
    """Every finite number that is drawn."""
    return [value for value in (*drawing.y, *(one for one, _ in drawing.limits)) if value]


def _is_log(drawing: Drawing) -> bool:
    positive = [value for value in _shown(drawing) if value > 0]
    wide = len(positive) > 1 and max(positive) > 10**_DECADES * min(positive)
    return wide and (drawing.log or not drawing.is_line) and min(_shown(drawing), default=0) > 0


def _decades(drawing: Drawing) -> list[float]:
    """The range of a logarithmic axis: twelve decades below the largest value, or to the limits."""
    logs = [math.log10(value) for value in _shown(drawing) if value > 0]
    top, bottom = max(logs), min(logs)
    limits = [math.log10(value) for value, _ in drawing.limits if value > 0]
    return [min(max(bottom, top - 12), *limits, top) - 0.5, top + 0.6]


def _span(drawing: Drawing) -> float:
    low, high = _decades(drawing)
    return high - low


def wrapped(text: str, width: int = 24) -> str:
    """An axis title in lines of a width."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)
