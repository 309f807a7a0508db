"""Plotly figures of a run as plain dicts; colours are filled in by the page (see ``page.js``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.charts.evidence import evidence_figure
from inspector.quantities import QUANTITIES, described
from inspector.store.layout import F32
from inspector.store.reader import Run, Series
from inspector.views.findings import Picture

POINTS = 600
COLUMNS = 200
ROWS = 60
Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its heading."""

    id: str
    title: str
    about: str
    figure: Figure
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that was done at a step."""

    step: int
    text: str


def line_chart(
    run: Run,
    id: str,  # noqa: A002
    title: str,
    quantities: Sequence[str],
    *,
    markers: Iterable[Marker] = (),
    wide: bool = False,
) -> Chart | None:
    """Quantities of the run over its steps, a line for each of them and each rank."""
    traces: list[Figure] = []
    ranks = run.ranks
    known = [QUANTITIES[name] for name in quantities if name in QUANTITIES]
    shade = 0
    for name in quantities:
        for rank in ranks:
            series = run.series(name, max_points=POINTS, rank=rank)
            if not len(series):
                continue
            shown = described(name)
            label = f"{shown.title}, rank {rank}" if len(ranks) > 1 else shown.title
            sparse = shown.when == "epoch"
            traces += _line(series, label, shade, dots=sparse or len(series) == 1)
            shade += 1
    if not traces:
        return None
    lines = [trace for trace in traces if "fill" not in trace and "yaxis" not in trace]
    units = {one.unit for one in known if one.unit}
    log = bool(known) and all(one.log for one in known) and _positive(lines)
    layout = _layout(260 if not wide else 320, log=log, unit=units.pop() if units else "")
    if log and _decades([value for trace in lines for value in trace["y"]]) >= 2:
        layout["yaxis"]["dtick"] = 1
    layout["showlegend"] = len(lines) > 1
    layout["shapes"] = [
        {"type": "line", "x0": one.step, "x1": one.step, "y0": 0, "y1": 1, "yref": "paper"}
        for one in markers
    ]
    traces += _marker_hovers(markers)
    return Chart(
        id, title, " ".join(one.about for one in known), {"data": traces, "layout": layout}, wide
    )


def matrix_chart(run: Run, id: str, quantity: str, title: str) -> Chart | None:  # noqa: A002
    """A heat map of modules over steps."""
    known = QUANTITIES[quantity]
    found = run.matrix(quantity, by="module", max_points=COLUMNS)
    if not found.subjects or len(found.steps) < 2:
        return None
    values = found.values[:ROWS]
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(values) if known.log else values
    hover = f"%{{y}}<br>step %{{x}}<br>{'10^' if known.log else ''}%{{z:.3g}}<extra></extra>"
    rows = [name or "(model)" for name in found.subjects[:ROWS]]
    data = {
        "type": "heatmap", "x": found.steps.tolist(), "y": rows, "z": _rounded(shown),
        "hovertemplate": hover, "hoverongaps": False,
        "colorbar": {
            "thickness": 12, "nticks": 5, "title": {"text": "log₁₀" if known.log else ""},
        },
    }  # fmt: skip
    layout = _layout(max(200, 90 + 22 * len(rows)), log=False, unit="")
    layout["yaxis"] = {"autorange": "reversed", "type": "category", "ticks": ""}
    left_out = len(found.subjects) - len(rows)
    about = known.about + (f" The last {left_out} modules are left out." if left_out > 0 else "")
    return Chart(id, title, about, {"data": [data], "layout": layout}, wide=True)


def evidence(picture: Picture) -> Figure:
    """What a finding rests on with its limits, as the Findings page draws it."""
    drawn = evidence_figure(picture.drawing, window=picture.window, height=210)
    drawn.layout.template = None  # the page brings its own colours
    figure: Figure = json.loads(drawn.to_json())
    return figure


def _line(series: Series, label: str, shade: int, *, dots: bool) -> list[Figure]:
    steps = series.steps.tolist()
    line = {
        "type": "scatter", "mode": "lines+markers" if dots else "lines", "x": steps,
        "y": _rounded(series.values), "name": label, "_color": shade, "line": {"width": 1.7},
        "marker": {"size": 6}, "hovertemplate": f"%{{y:.5g}}<extra>{_plain(label)}</extra>",
    }  # fmt: skip
    bad = _nonfinite(series, label)
    if series.bucket == 1:
        return [line, *bad]
    band = {
        "type": "scatter", "mode": "lines", "x": steps + steps[::-1],
        "y": _rounded(np.concatenate([series.high, series.low[::-1]])), "fill": "toself",
        "line": {"width": 0}, "_color": shade, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    return [band, line, *bad]


def _nonfinite(series: Series, label: str) -> list[Figure]:
    """Marks at the foot of the chart where NaN or infinity was measured."""
    steps = series.steps[series.nonfinite > 0].tolist()
    if not steps:
        return []
    return [
        {
            "type": "scatter", "mode": "markers", "x": steps, "y": [0.03] * len(steps),
            "yaxis": "y2", "showlegend": False, "_color": 5, "marker": {"size": 5, "symbol": "x"},
            "hovertemplate": f"step %{{x}}: NaN or infinity<extra>{_plain(label)}</extra>",
        }
    ]  # fmt: skip


def _marker_hovers(markers: Iterable[Marker]) -> list[Figure]:
    placed = list(markers)
    if not placed:
        return []
    return [
        {
            "type": "scatter", "mode": "markers", "x": [one.step for one in placed],
            "y": [0.02] * len(placed), "yaxis": "y2", "showlegend": False, "_color": 7,
            "marker": {"size": 9, "symbol": "triangle-up"},
            "text": [_plain(one.text) for one in placed],
            "hovertemplate": "step %{x}: %{text}<extra></extra>",
        }
    ]  # fmt: skip


def _layout(height: int, *, log: bool, unit: str) -> Figure:
    return {
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 28, "b": 36},
        "hovermode": "closest",
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {
            "type": "log" if log else "linear",
            "exponentformat": "power" if log else "SI",
            "title": {"text": unit},
        },
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }


def _decades(values: Iterable[float | None]) -> float:
    """Powers of ten that positive values span; 0 where some are not positive."""
    numbers = [value for value in values if value is not None]
    if not numbers or min(numbers) <= 0:
        return 0.0
    return float(np.log10(max(numbers)) - np.log10(min(numbers)))


def _positive(traces: list[Figure]) -> bool:
    return any(value is not None and value > 0 for trace in traces for value in trace["y"])


def _rounded(values: F32) -> Any:
    """Nested lists with six significant digits; None for what is not a finite number."""
    if values.ndim > 1:
        return [_rounded(line) for line in values]
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _plain(text: str) -> str:
    """Plotly reads a little HTML in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
