"""Line charts of several runs over each other, drawn by the same code as the live charts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inspector.quantities import described
from inspector.ui.board import HOLDER, STYLES
from inspector.ui.components import component
from inspector.views.compare import Axis, Curve

_COLOURS = 8
_DASHED = [7, 4]
_SMOOTH = 0.9
_AXES = {"step": "", "epoch": "epoch", "time": "s"}

_compare = component("compare", HOLDER, "live.js", view="compare", styles=STYLES)


@dataclass(frozen=True, slots=True)
class Overlay:
    """One chart.

    Attributes:
        curves: one for each run; None where it has nothing to show.
        hues: place of each run's colour; by default its own place.
    """

    id: str
    title: str
    quantity: str
    curves: Sequence[Curve | None]
    labels: Sequence[str]
    hues: Sequence[int] = ()
    wide: bool = True


def compare_board(
    overlays: Sequence[Overlay],
    *,
    axis: Axis,
    marks: Sequence[tuple[float, str]] = (),
    key: str,
) -> None:
    """Draws the charts; a later call with the same key changes the numbers in place.

    Args:
        marks: places on the axis and a sentence for each, drawn as upright lines.
    """
    data = {
        "axis": axis,
        "charts": [_chart(overlay, axis) for overlay in overlays],
        "points": [[_points(curve) for curve in overlay.curves] for overlay in overlays],
        "markers": [list(mark) for mark in marks],
    }
    _compare(key=key, data=data)


def _chart(overlay: Overlay, axis: Axis) -> dict[str, Any]:
    known = described(overlay.quantity)
    sparse = known.when == "epoch"
    hues = overlay.hues or range(len(overlay.curves))
    lines = [
        {
            "label": label,
            "sparse": sparse,
            "loose": True,
            "hue": hue,
            **({"dash": _DASHED} if hue >= _COLOURS // 2 else {}),
        }
        for label, hue in zip(overlay.labels, hues, strict=True)
    ]
    return {
        "kind": "line",
        "id": overlay.id,
        "title": overlay.title,
        "unit": known.unit,
        "about": known.about,
        "lines": lines,
        "log": known.log,
        "smooth": 0.0 if sparse else _SMOOTH,
        "wide": overlay.wide,
        "height": 260,
        "axis": _AXES[axis],
    }


def _points(curve: Curve | None) -> dict[str, str]:
    if curve is None:
        return {"x": "", "value": ""}
    series = curve.series
    shown = np.where(np.isfinite(series.values), series.values, np.float32(np.nan))
    packed = {"x": _text(curve.x, "<f8"), "value": _text(shown, "<f4")}
    if series.bucket > 1:
        packed |= {"low": _text(series.low, "<f4"), "high": _text(series.high, "<f4")}
    if series.nonfinite.any():
        packed["bad"] = _text(series.nonfinite, "<f4")
    return packed


def _text(values: npt.NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()
