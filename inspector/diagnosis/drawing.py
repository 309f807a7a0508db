"""What a statistic looks like: over the steps of a run, or one bar for each module or class.

A rule draws the number that it compares with its threshold, not only the series that the number
was derived from; so the limit is a line on the same axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_POINTS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A statistic, ready for a chart.

    Attributes:
        axis: what the values are.
        x: steps of a line, or names of bars.
        y: one value for each; None where it was not finite.
        log: whether a logarithmic axis suits it.
        limits: horizontal lines, as pairs of value and label.
        marked: positions of the bars that the finding is about.
    """

    axis: str
    x: tuple[int, ...] | tuple[str, ...]
    y: tuple[float | None, ...]
    log: bool = False
    limits: tuple[tuple[float, str], ...] = ()
    marked: tuple[int, ...] = ()

    @property
    def is_line(self) -> bool:
        """Whether it goes over steps."""
        return all(isinstance(place, int) for place in self.x)


def over_steps(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    axis: str,
    *limits: tuple[float, str],
    log: bool = False,
) -> Drawing:
    """A line of at most about 160 points; lowest and highest of each stretch are kept."""
    x, y = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)
    kept = _kept(y)
    return Drawing(
        axis=axis,
        x=tuple(int(step) for step in x[kept]),
        y=tuple(_number(value) for value in y[kept]),
        log=log,
        limits=limits,
    )


def as_bars(
    bars: Iterable[tuple[str, float | None]],
    axis: str,
    *limits: tuple[float, str],
    log: bool = False,
    marked: Sequence[str] = (),
) -> Drawing:
    """One bar for each name."""
    named = list(bars)
    return Drawing(
        axis=axis,
        x=tuple(name for name, _ in named),
        y=tuple(_number(value) for _, value in named),
        log=log,
        limits=limits,
        marked=tuple(at for at, (name, _) in enumerate(named) if name in marked),
    )


def _kept(values: npt.NDArray[np.float64]) -> list[int]:
    if len(values) <= _POINTS:
        return list(range(len(values)))
    lost = ~np.isfinite(values)
    kept = {0, len(values) - 1, int(lost.argmax())}
    for part in np.array_split(np.arange(len(values)), _POINTS // 2):
        inside = values[part]
        if np.isfinite(inside).any():
            kept |= {int(part[np.nanargmin(inside)]), int(part[np.nanargmax(inside)])}
        else:
            kept.add(int(part[0]))
    return sorted(kept)


def _number(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
