"""Parallel coordinates as a Plotly figure.

Plotly's own ``parcoords`` draws by a library that makes functions of text, which needs
``unsafe-eval`` in the page's security policy: any text could then be run. Plain lines do the same,
can be hovered, and are brushed by what stands above them.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from inspector.views.compare_parallel import Upright

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b5558f", "#b07900", "#3a9fd8", "#15202b", "#7d7d00")
DARK = ("#56b4e9", "#ff8c3b", "#2fd0a0", "#e79fc8", "#e6b422", "#8fa8ff", "#e8edf4", "#d9d945")
"""Colours of runs after Okabe and Ito, as in ``ui/assets/compare.js``."""

_GREY = "rgba(128, 128, 128, 0.45)"
_AXIS = "rgba(128, 128, 128, 0.8)"
_BEHIND = {True: "rgba(16, 21, 28, 0.75)", False: "rgba(255, 255, 255, 0.8)"}
_HEIGHT = 360
_TITLE = 16  # letters of a line of a title
_NARROW, _MANY = 11, 8  # above so many axes


def parallel(
    names: Sequence[str], axes: Sequence[Upright], *, dark: bool, kept: Sequence[bool] = ()
) -> go.Figure:
    """A line for each run over upright axes; runs beyond the colours are grey.

    Args:
        kept: which runs stand out; the others are thin, faint and without a name. By default all.
    """
    palette = DARK if dark else LIGHT
    figure = go.Figure()
    letters = _NARROW if len(axes) > _MANY else _TITLE
    kept = kept or [True] * len(names)
    for place in sorted(range(len(names)), key=lambda place: (kept[place], -place)):
        stands_out = kept[place]
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[place] for axis in axes],
            text=[f"{axis.title}: {axis.texts[place]}" for axis in axes],
            name=names[place],
            mode="lines+markers",
            line={
                "color": palette[place] if stands_out and place < len(palette) else _GREY,
                "width": 2.2 if stands_out else 1,
            },
            marker={"size": 8 if stands_out else 4},
            showlegend=stands_out,
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
        )
    for at, axis in enumerate(axes):
        figure.add_shape(
            type="line", x0=at, x1=at, y0=0, y1=1, layer="below", line={"color": _AXIS, "width": 1}
        )
        name = _wrapped(axis.title, letters)
        figure.add_annotation(
            x=at, y=1.07, yanchor="bottom", showarrow=False, hovertext=axis.title,
            text=f"<b>{name}</b>" if axis.result else name,
        )  # fmt: skip
        for height, label in axis.ticks:
            figure.add_annotation(
                x=at, y=height, xanchor="left", xshift=5, yshift=9, showarrow=False,
                font={"size": 11}, text=_plain(_short(label)), bgcolor=_BEHIND[dark],
                hovertext=_plain(label),
            )  # fmt: skip
    # The last axis needs room for its labels at the right.
    figure.update_xaxes(visible=False, range=[-0.15, max(len(axes) - 0.4, 0.6)], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-0.06, 1.3], fixedrange=True)
    figure.update_layout(
        height=_HEIGHT,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=True,
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "traceorder": "reversed"},
        hovermode="closest",
    )
    return figure


def _wrapped(title: str, letters: int) -> str:
    """A title in at most three lines; of the path of a setting the last two are kept."""
    words = title.split(" ") if " " in title else [f"{part}." for part in title.split(".")]
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= letters:
            lines.append("")
        lines[-1] += word if "." in word else f" {word}"
    shown = [line.strip().rstrip(".")[:_TITLE] for line in lines[-3 if " " in title else -2 :]]
    return "<br>".join(map(_plain, shown))


def _short(label: str) -> str:
    """A label that fits between two axes: of a path the end is kept, else the beginning."""
    if len(label) <= _TITLE:
        return label
    return f"…{label[1 - _TITLE :]}" if "/" in label else f"{label[: _TITLE - 1]}…"


def _plain(text: str) -> str:
    """Text that Plotly does not take for markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
