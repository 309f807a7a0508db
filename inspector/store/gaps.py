"""One series in buckets: where it was measured, which is not at every row of its group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.store.layout import FANOUT, I32, I64, LEVELS, STRIPE, is_absent
from inspector.store.query import Source, buckets, raw
from inspector.store.rollup import Buckets, decode_counts


def measured(
    source: Source, group: str, column: int, lo: int, hi: int, max_points: int
) -> tuple[int, Buckets]:
    """Rows per bucket, and the buckets [m] of rows [lo, hi) that have numbers of one column.

    ``last`` is the last step of each at which there is one.
    """
    size, found = buckets(source, group, np.array([column]), lo, hi, max_points)
    count = found.measured[0]
    kept = count > 0
    last = found.last[kept]
    if _gaps(count, lo, hi, size):
        exact = _last(source, group, column, lo, hi, size)
        last = exact if len(exact) == len(last) else last
    fields = (found.low, found.high, found.mean, found.finite, found.nonfinite)
    return size, Buckets(found.first[kept], last, *(field[0][kept] for field in fields))


def _gaps(count: I32, lo: int, hi: int, size: int) -> bool:
    """Whether a bucket with numbers has rows without one."""
    edges = np.arange(lo // size, -(-hi // size) + 1) * size
    rows = np.diff(np.clip(edges, lo, hi))
    return len(rows) != len(count) or bool(((count > 0) & (count < rows)).any())


def _last(source: Source, group: str, column: int, lo: int, hi: int, size: int) -> I64:
    """Of each bucket of rows [lo, hi) that has numbers of one column, the step of its last one."""
    parts = [
        (rows[have], steps[0][have], steps[1][have], count[have])
        for rows, steps, count in _counts(source, group, column, lo, hi, size)
        if (have := count > 0).any()
    ]
    if not parts:
        return np.empty(0, np.int64)
    rows, first, last, count = (np.concatenate(field) for field in zip(*parts, strict=True))
    ends = np.flatnonzero(np.diff(rows // size, append=-1))
    found: I64 = last[ends].copy()
    # A finer bucket with gaps, of which any row may be the last one that was measured.
    for at in np.flatnonzero((first[ends] < last[ends]) & (count[ends] < LEVELS[0])):
        row = int(rows[ends[at]])
        _, steps, values = raw(source, group, np.array([column]), row, row + LEVELS[0])
        here = np.flatnonzero(~is_absent(values[0]))
        if len(here):
            found[at] = steps[here[-1]]
    return found


def _counts(
    source: Source, group: str, column: int, lo: int, hi: int, size: int
) -> Iterator[tuple[I64, I64, I64]]:
    """Where rows [lo, hi) have numbers of a column, by the finest buckets or by row.

    Rows [n], first and last steps [2, n], and how many numbers [n].
    """
    columns = np.array([column])
    span = FANOUT * LEVELS[0]
    stored = source.rows(
        "SELECT row, crc, steps, v FROM roll "
        "WHERE grp=? AND level=1 AND stripe=? AND row>=? AND row<? ORDER BY row",
        group, column // STRIPE, -(-lo // span) * span, hi // span * span,
    ) if size > LEVELS[0] else []  # fmt: skip
    at = lo
    for row, crc, packed, blob in (*stored, (hi, 0, b"", b"")):
        decoded = decode_counts(crc, packed, blob, column % STRIPE) if row < hi else None
        if decoded is None and row < hi:
            continue  # damaged: the rows themselves are read
        if at < row:
            rows, steps, values = raw(source, group, columns, at, row)
            yield rows, np.stack([steps, steps]), (~is_absent(values[0])).astype(np.int64)
        if decoded is not None:
            yield np.arange(row, row + span, LEVELS[0]), *decoded
        at = row + span
