"""Curves as a small SVG picture: for previews that change in place."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_LEFT, _TOP, _BOTTOM = 2, 6, 16
_ROW = 16  # of the legend
_SAMPLE = 14  # of a curve, in the legend
_LETTER = 5.7  # mean width of one at 11 px
_MOST = 240
_INK = {True: "#e8edf4", False: "#15202b"}
# The theme's primary colour, then those of its charts.
_LIGHT = ("#3b5bdb", "#d9480f", "#2b8a3e", "#9c36b5", "#0c8599", "#c2255c", "#e67700", "#495057")
_DARK = ("#748ffc", "#ff922b", "#51cf66", "#da77f2", "#3bc9db", "#f783ac", "#ffd43b", "#ced4da")
MOST_CURVES = len(_LIGHT)


@dataclass(frozen=True, slots=True)
class Curve:
    """Values that are evenly spaced.

    Attributes:
        title, told: left and right in its row of the legend, which stands where there is a title.
    """

    values: Sequence[float]
    title: str = ""
    told: str = ""


def sparkline(
    curves: Sequence[Curve],
    *,
    dark: bool,
    width: int = 260,
    height: int = 90,
    under: tuple[str, str] = ("", ""),
) -> str:
    """Curves of finite values, from 0 to the greatest of all; of eight at most.

    Args:
        height: without the legend.
        under: words below the left and the right end.
    """
    curves = curves[:MOST_CURVES]
    top = max((v for curve in curves for v in curve.values if math.isfinite(v)), default=0.0) or 1.0
    ink, colours = _INK[dark], _DARK if dark else _LIGHT
    base = height - _BOTTOM
    rows = [curve for curve in curves if curve.title]
    drawn = [  # the first on top
        f'<polyline points="{_points(curve.values, top, width, base)}" stroke="{colour}" '
        'stroke-width="2" stroke-linejoin="round"/>'
        for curve, colour in zip(curves, colours, strict=False)
    ][::-1]
    whole = height + _ROW * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" '
        f'width="{width}" height="{whole}" fill="none">'
        f'<line x1="{_LEFT}" y1="{base}" x2="{width - _LEFT}" y2="{base}" stroke="{ink}" '
        f'stroke-opacity="0.3"/>{"".join(drawn)}'
        + _text(_LEFT, height - 3, under[0], ink)
        + _text(width - _LEFT, height - 3, under[1], ink, end=True)
        + "".join(
            _row(curve, height + _ROW * at, width, colour, ink)
            for at, (curve, colour) in enumerate(zip(rows, colours, strict=False))
        )
        + "</svg>"
    )


def _points(values: Sequence[float], top: float, width: int, base: int) -> str:
    every = max(1, math.ceil(len(values) / _MOST))
    shown = list(values[::every])
    if values and (len(values) - 1) % every:
        shown.append(values[-1])
    across = (width - 2 * _LEFT) / max(1, len(shown) - 1)
    return " ".join(
        f"{_LEFT + at * across:.1f},{_TOP + (base - _TOP) * (1 - max(0.0, value) / top):.1f}"
        for at, value in enumerate(shown)
        if math.isfinite(value)
    )


def _row(curve: Curve, top: int, width: int, colour: str, ink: str) -> str:
    middle, begin = top + _ROW / 2, _LEFT + _SAMPLE + 6
    room = int((width - begin - _LEFT) / _LETTER) - len(curve.told) - 2
    title = curve.title if len(curve.title) <= room else f"{curve.title[: max(1, room - 1)]}…"
    return (
        f'<line x1="{_LEFT}" y1="{middle}" x2="{_LEFT + _SAMPLE}" y2="{middle}" '
        f'stroke="{colour}" stroke-width="2"/>'
        + _text(begin, top + 12, title, ink)
        + _text(width - _LEFT, top + 12, curve.told, ink, end=True)
    )


def _text(x: float, y: float, words: str, ink: str, *, end: bool = False) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{"end" if end else "start"}" font-size="11" '
        f'font-family="sans-serif" fill="{ink}" fill-opacity="0.75">{html.escape(words)}</text>'
    )
