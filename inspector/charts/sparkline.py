"""A curve as a small SVG: for previews that change in place, in whatever colours stand around."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

_LEFT, _TOP, _BOTTOM = 2, 6, 16
_MOST = 240


def sparkline(
    values: Sequence[float],
    *,
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
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%" role="img" '
        f'style="max-width:{width}px;display:block" fill="none">'
        f'<line x1="{_LEFT}" y1="{base}" x2="{width - _LEFT}" y2="{base}" '
        'stroke="currentColor" stroke-opacity="0.3"/>'
        f'<polyline points="{points}" stroke="var(--st-primary-color, #4c6ef5)" stroke-width="2" '
        'stroke-linejoin="round"/>'
        f'<text x="{_LEFT}" y="{height - 3}" font-size="11" fill="currentColor" '
        f'fill-opacity="0.7">{left}</text>'
        f'<text x="{width - _LEFT}" y="{height - 3}" font-size="11" text-anchor="end" '
        f'fill="currentColor" fill-opacity="0.7">{right}</text></svg>'
    )
