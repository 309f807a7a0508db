"""Parallel coordinates: an upright axis for each setting and result, a line for each run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspector.numerals import short
from inspector.views.compare_settings import Difference, shown

MOST_AXES = 12
_LOG_SPAN = 50.0
_TICKS = 5
_ORIGINS = frozenset({"resume", "code", "metrics"})  # told by the table of settings
_FILES = (".pt", ".pth", ".safetensors")
_LABEL = 0.08  # height of a label, as a share of the axis


@dataclass(frozen=True, slots=True)
class Upright:
    """One axis.

    Attributes:
        title: the setting or result.
        places: height of each run in [0, 1]; None where a run has no such value.
        ticks: heights and labels.
        texts: each run's value in words.
        result: whether it is an outcome and not a setting.
        ordered: whether its values are numbers, of which a range can be asked for.
    """

    title: str
    places: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]
    texts: tuple[str, ...]
    result: bool = False
    ordered: bool = False

    @property
    def options(self) -> list[str]:
        """Its values in words, from the bottom up; what a run lacks is none."""
        found = [(place, text) for place, text in zip(self.places, self.texts, strict=True)
                 if place is not None]  # fmt: skip
        return list(dict.fromkeys(text for _, text in sorted(found)))

    def keeps(self, wanted: Sequence[str]) -> tuple[bool, ...]:
        """Which runs have one of these values, or one between two of an ordered axis.

        Everything is kept where nothing is wanted, or all of it.
        """
        options = self.options
        if self.ordered and wanted:
            first, last = options.index(wanted[0]), options.index(wanted[-1])
            wanted = options[first : last + 1]
        if not wanted or len(wanted) == len(options):
            return (True,) * len(self.texts)
        return tuple(text in wanted for text in self.texts)


def uprights(
    differences: Sequence[Difference], results: Sequence[tuple[str, Sequence[float | None]]]
) -> list[Upright]:
    """Axes of settings, then of results; those on which nothing differs are left out.

    Where a run comes from (a checkpoint, a file of weights, typed source) and what is measured are
    no settings to compare results by and get none. Numbers have a linear axis, or a logarithmic one
    where all are positive and the greatest is fifty times the least or more; anything else has one
    place for each value.
    """
    made = [upright(item.path, item.values) for item in differences if not _is_origin(item)]
    room = MOST_AXES - len(results)
    chosen = [axis for axis in made if axis is not None][: max(room, 1)]
    for name, values in results:
        axis = upright(name, values, result=True)
        if axis is not None:
            chosen.append(axis)
    return chosen


def _is_origin(item: Difference) -> bool:
    """Checkpoints, texts of Python, and files; ``file:net.py:Net`` is a choice of a model."""
    files = (value for value in item.values if isinstance(value, str))
    return item.path in _ORIGINS or any(
        value.startswith(("/", "~", "./", "../")) or value.endswith(_FILES) for value in files
    )


def upright(title: str, values: Sequence[Any], *, result: bool = False) -> Upright | None:
    """The axis of these values, one for each run; None where there is nothing to tell apart."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if all(_is_number(value) for value in given):
        return _numbers(title, values, result)
    # Not set is a choice like any other.
    labels = list(dict.fromkeys(shown(value) for value in values))
    if len(labels) < 2:
        return None
    heights = {label: (place + 0.5) / len(labels) for place, label in enumerate(sorted(labels))}
    return Upright(
        title,
        tuple(heights[shown(value)] for value in values),
        tuple((height, label) for label, height in heights.items()),
        tuple(shown(value) for value in values),
        result,
    )


def _numbers(title: str, values: Sequence[Any], result: bool) -> Upright | None:
    numbers = [None if value is None or not math.isfinite(value) else float(value)
               for value in values]  # fmt: skip
    finite = [number for number in numbers if number is not None]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if low == high and not result:
        return None
    log = low > 0 and high / low >= _LOG_SPAN
    scale = math.log10 if log else float
    bottom, top = scale(low), scale(high)

    def height(number: float) -> float:
        return 0.5 if top == bottom else (scale(number) - bottom) / (top - bottom)

    distinct = sorted(set(finite))
    marks = distinct if len(distinct) <= _TICKS else _even(bottom, top, log)
    return Upright(
        title + " (log)" * log,
        tuple(None if number is None else height(number) for number in numbers),
        _apart([(height(mark), short(mark)) for mark in marks]),
        tuple("–" if value is None else short(value, 5) for value in values),
        result,
        ordered=True,
    )


def _apart(ticks: list[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Rising ticks without those whose labels would lie over others; both ends stay."""
    kept = ticks[:1]
    for height, label in ticks[1:]:
        if height - kept[-1][0] >= _LABEL:
            kept.append((height, label))
        elif height >= 1 and len(kept) > 1:
            kept[-1] = (height, label)
    return tuple(kept)


def _even(bottom: float, top: float, log: bool) -> list[float]:
    marks = [bottom + (top - bottom) * place / (_TICKS - 1) for place in range(_TICKS)]
    return [10**mark for mark in marks] if log else marks


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
