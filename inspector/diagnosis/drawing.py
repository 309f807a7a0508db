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
_BARS = 24  # whose names can be read beside each other


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
        rest: how many more bars there would be.
    """

    axis: str
    x: tuple[int, ...] | tuple[str, ...]
    y: tuple[float | None, ...]
    log: bool = False
    limits: tuple[tuple[float, str], ...] = ()
    marked: tuple[int, ...] = ()
    rest: int = 0

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
    of: int = 0,
) -> Drawing:
    """One bar for each name.

    Args:
        of: how many there are of what the bars are about; where it is given, no more than 24 are
            drawn, in their order: marked ones and others, so that they can be compared.
    """
    named = list(bars)
    if of:
        named = _compared(named, marked)
    return Drawing(
        axis=axis,
        x=tuple(name for name, _ in named),
        y=tuple(_number(value) for _, value in named),
        log=log,
        limits=limits,
        marked=tuple(at for at, (name, _) in enumerate(named) if name in marked),
        rest=max(of - len(named), 0),
    )


def _compared(
    named: list[tuple[str, float | None]], marked: Sequence[str]
) -> list[tuple[str, float | None]]:
    """Of marked bars and of others half of what fits, or more where the other half is smaller."""
    blamed = [at for at, (name, _) in enumerate(named) if name in marked]
    others = [at for at, (name, _) in enumerate(named) if name not in marked]
    beside = min(len(others), max(_BARS // 2, _BARS - len(blamed)))
    kept = {*_spread(others, beside), *_spread(blamed, _BARS - beside)}
    return [named[at] for at in sorted(kept)]


def _spread(places: list[int], most: int) -> list[int]:
    """So many of them, the first and the last included."""
    if len(places) <= most:
        return places
    return [places[at] for at in np.linspace(0, len(places) - 1, most).astype(int)]


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
