"""The pyramid: least, greatest, mean and counts of every 16, 256 and 4,096 rows of a group.

A bucket covers rows [b·size, (b+1)·size) of its group, counted from the group's first row. One
``roll`` row holds FANOUT buckets of one stripe; ``v`` is low, high, mean (float32) and finite,
non-finite (uint16), each series-major (series × FANOUT); ``steps`` is int64 [2, FANOUT]: the
first and the last step of each bucket. ABSENT numbers are in neither count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from inspector.store.chunks import Statement, checksum
from inspector.store.layout import ABSENT, F32, FANOUT, I32, I64, LEVELS, STRIPE, is_absent

Array = npt.NDArray[Any]
_FIELDS: tuple[Literal["low", "high", "mean", "finite", "nonfinite"], ...] = (
    "low", "high", "mean", "finite", "nonfinite",
)  # fmt: skip
_BYTES_PER_BUCKET = 16


@dataclass(slots=True, eq=False)
class Buckets:
    """Statistics of m buckets of k series: steps are [m], the rest is [m, k] or [k, m].

    low, high and mean are over finite numbers and NaN where there is none.
    """

    first: I64
    last: I64
    low: F32
    high: F32
    mean: F32
    finite: I32
    nonfinite: I32

    @property
    def measured(self) -> I32:
        """How many numbers there are; the rest of a bucket's rows is ABSENT."""
        return self.finite + self.nonfinite


def summarize(steps: I64, rows: F32) -> Buckets:
    """Buckets [m, k] of rows [m·FANOUT, k]."""
    groups = rows.reshape(-1, FANOUT, rows.shape[1])
    shape = (len(groups), rows.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = groups.mean(axis=1)
    # A finite sum has finite terms; this spares the healthy case every mask.
    if np.isfinite(mean).all():
        low, high = groups.min(axis=1), groups.max(axis=1)
        finite, nonfinite = np.full(shape, FANOUT, np.int32), np.zeros(shape, np.int32)
    else:
        low, high, mean, finite, nonfinite = _summarize_masked(groups)
    return Buckets(
        steps[::FANOUT].copy(), steps[FANOUT - 1 :: FANOUT].copy(), low, high, mean, finite,
        nonfinite,
    )  # fmt: skip


def _summarize_masked(groups: F32) -> tuple[F32, F32, F32, I32, I32]:
    good = np.isfinite(groups)
    kept = np.where(good, groups, np.float32(np.nan))
    finite = good.sum(axis=1, dtype=np.int32)
    nonfinite = (~good & ~is_absent(groups)).sum(axis=1, dtype=np.int32)
    total = np.where(good, groups, 0).sum(axis=1, dtype=np.float64)
    return (
        np.fmin.reduce(kept, axis=1),
        np.fmax.reduce(kept, axis=1),
        _mean(total, finite),
        finite,
        nonfinite,
    )


def _mean(total: npt.NDArray[np.float64], count: I32) -> F32:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count).astype(np.float32)


def combine(buckets: Buckets, starts: I64, axis: int) -> Buckets:
    """Coarser buckets: one for each run of buckets that begins at ``starts`` along ``axis``."""
    weight = np.where(buckets.finite > 0, buckets.mean, 0).astype(np.float64) * buckets.finite
    finite = np.add.reduceat(buckets.finite, starts, axis=axis)
    ends = np.append(starts[1:], len(buckets.last)) - 1
    return Buckets(
        buckets.first[starts],
        buckets.last[ends],
        np.fmin.reduceat(buckets.low, starts, axis=axis),
        np.fmax.reduceat(buckets.high, starts, axis=axis),
        _mean(np.add.reduceat(weight, starts, axis=axis), finite),
        finite,
        np.add.reduceat(buckets.nonfinite, starts, axis=axis),
    )


def concatenate(parts: list[Buckets], axis: int) -> Buckets:
    return Buckets(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.last for part in parts]),
        *(np.concatenate([getattr(part, name) for part in parts], axis) for name in _FIELDS),
    )


def roll_statement(group: str, level: int, row: int, buckets: Buckets) -> Statement:
    """One INSERT with FANOUT buckets [FANOUT, k], all stripes."""
    steps = np.stack([buckets.first, buckets.last]).astype("<i8").tobytes()
    fields = [
        np.ascontiguousarray(getattr(buckets, name).T).astype(kind, copy=False)
        for name, kind in zip(_FIELDS, ("<f4", "<f4", "<f4", "<u2", "<u2"), strict=True)
    ]
    parameters: list[object] = []
    for stripe, at in enumerate(range(0, buckets.low.shape[1], STRIPE)):
        values = b"".join(array[at : at + STRIPE].tobytes() for array in fields)
        crc = checksum(steps, values)
        parameters += (group, level, stripe, row, crc, steps, values)
    places = ",".join(["(?,?,?,?,?,?,?)"] * (len(parameters) // 7))
    return (
        f"INSERT INTO roll(grp, level, stripe, row, crc, steps, v) VALUES {places}",
        parameters,
    )


def decode_roll(crc: int, steps: bytes, values: bytes) -> Buckets | None:
    """Buckets [k, FANOUT]; None when the stored bytes are damaged."""
    if checksum(steps, values) != crc or len(values) % (_BYTES_PER_BUCKET * FANOUT):
        return None
    first, last = np.frombuffer(steps, "<i8").reshape(2, FANOUT)
    size = len(values) // _BYTES_PER_BUCKET
    low, high, mean = np.frombuffer(values, "<f4", 3 * size).reshape(3, -1, FANOUT)
    finite, nonfinite = _counts(values).astype(np.int32)
    return Buckets(first, last, low, high, mean, finite, nonfinite)


def decode_counts(crc: int, steps: bytes, values: bytes, series: int) -> tuple[I64, I64] | None:
    """First and last steps [2, FANOUT], and how many numbers of one series [FANOUT] there are.

    None when the stored bytes are damaged.
    """
    if checksum(steps, values) != crc or len(values) % (_BYTES_PER_BUCKET * FANOUT):
        return None
    counts = _counts(values)
    inside = series < counts.shape[1]
    count = counts[:, series].sum(axis=0, dtype=np.int64) if inside else np.zeros(FANOUT, np.int64)
    return np.frombuffer(steps, "<i8").reshape(2, FANOUT), count


def _counts(values: bytes) -> Array:
    """Finite and non-finite numbers [2, k, FANOUT] of a stored row."""
    size = len(values) // _BYTES_PER_BUCKET
    return np.frombuffer(values, "<u2", 2 * size, 12 * size).reshape(2, -1, FANOUT)


class Pyramid:
    """The open end of one group's pyramid, on the writer's side.

    Whole rows of the database come out as statements as soon as their last row has come in.
    """

    def __init__(self, group: str, row: int = 0) -> None:
        """``row`` is the first row that the lowest level does not cover yet."""
        self._group = group
        self._row = row  # of the first row in the tail
        self._steps: I64 = np.empty(0, np.int64)
        self._tail: F32 = np.empty((0, 0), np.float32)
        self._open: list[Buckets | None] = [None] * len(LEVELS)
        self._starts = [row] * len(LEVELS)

    def restore(self, level: int, row: int, buckets: Buckets | None) -> None:
        """Puts back the buckets [m, k] of a level that are not yet part of a stored row."""
        self._open[level - 1] = buckets
        self._starts[level - 1] = row

    def add(self, steps: I64, rows: F32) -> list[Statement]:
        """Takes rows [n, k]; k may grow from call to call, never shrink."""
        if len(self._tail):
            tail = _widen(self._tail, rows.shape[1], ABSENT)
            steps, rows = np.concatenate([self._steps, steps]), np.concatenate([tail, rows])
        whole = len(rows) - len(rows) % FANOUT
        # Copies: the rows may be a block that the training thread fills again.
        self._steps, self._tail = steps[whole:].copy(), rows[whole:].copy()
        return self._lift(0, summarize(steps[:whole], rows[:whole])) if whole else []

    def _lift(self, level: int, buckets: Buckets) -> list[Statement]:
        """Adds buckets to a level (0 is the finest); what becomes full is stored and lifted."""
        rest = self._open[level]
        if rest is not None:
            buckets = concatenate([_widen_buckets(rest, buckets.low.shape[1]), buckets], axis=0)
        statements: list[Statement] = []
        count = len(buckets.first)
        for at in range(0, count - count % FANOUT, FANOUT):
            full = _cut(buckets, at, at + FANOUT)
            statements.append(roll_statement(self._group, level + 1, self._starts[level], full))
            self._starts[level] += FANOUT * LEVELS[level]
            if level + 1 < len(LEVELS):
                statements += self._lift(level + 1, combine(full, np.zeros(1, np.int64), axis=0))
        left = count % FANOUT
        self._open[level] = _cut(buckets, count - left, count) if left else None
        return statements


def _cut(buckets: Buckets, start: int, stop: int) -> Buckets:
    return Buckets(
        buckets.first[start:stop],
        buckets.last[start:stop],
        *(getattr(buckets, name)[start:stop] for name in _FIELDS),
    )


def _widen(array: Array, width: int, fill: Any) -> Array:
    if array.shape[1] == width:
        return array
    wide = np.full((len(array), width), fill, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide


def _widen_buckets(buckets: Buckets, width: int) -> Buckets:
    fills = (np.nan, np.nan, np.nan, 0, 0)
    return Buckets(
        buckets.first,
        buckets.last,
        *(
            _widen(getattr(buckets, name), width, fill)
            for name, fill in zip(_FIELDS, fills, strict=True)
        ),
    )
