"""A curve as a small SVG picture: for previews that change in place."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

_LEFT, _TOP, _BOTTOM = 2, 6, 16
_MOST = 240
_INK = {True: "#e8edf4", False: "#15202b"}
_LINE = {True: "#748ffc", False: "#3b5bdb"}  # the theme's primary colours


def sparkline(
    values: Sequence[float],
    *,
    dark: bool,
    width: int = 260,
    height: int = 90,
    under: tuple[str, str] = ("", ""),
) -> str:
    """The curve of finite values, evenly spaced, from 0 to the greatest of them.

    Args:
        under: words below the left and the right end.
    """
    top = max((value for value in values if math.isfinite(value)), default=0.0) or 1.0
    room = height - _TOP - _BOTTOM
    every = max(1, math.ceil(len(values) / _MOST))
    shown = list(values[::every])
    if values and (len(values) - 1) % every:
        shown.append(values[-1])
    across = (width - 2 * _LEFT) / max(1, len(shown) - 1)
    points = " ".join(
        f"{_LEFT + at * across:.1f},{_TOP + room * (1 - max(0.0, value) / top):.1f}"
        for at, value in enumerate(shown)
        if math.isfinite(value)
    )
    left, right = (html.escape(text) for text in under)
    base = _TOP + room
    ink, colour = _INK[dark], _LINE[dark]
    words = (
        f'<text x="{x}" y="{height - 3}" text-anchor="{anchor}" font-size="11" '
        f'font-family="sans-serif" fill="{ink}" fill-opacity="0.75">{text}</text>'
        for x, anchor, text in ((_LEFT, "start", left), (width - _LEFT, "end", right))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" fill="none">'
        f'<line x1="{_LEFT}" y1="{base}" x2="{width - _LEFT}" y2="{base}" stroke="{ink}" '
        'stroke-opacity="0.3"/>'
        f'<polyline points="{points}" stroke="{colour}" stroke-width="2" '
        f'stroke-linejoin="round"/>{"".join(words)}</svg>'
    )
