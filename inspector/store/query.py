"""Reading rows and buckets of a group out of one rank's database.

A range of rows is covered by the coarsest level asked for; where that has no (whole, undamaged)
row, the next finer level steps in, down to the raw rows. So an open end, a killed writer and a
damaged page all look the same to whoever draws.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.store.chunks import decode_chunk, stripes
from inspector.store.layout import (
    ABSENT,
    CHUNK_ROWS,
    F32,
    F64,
    FANOUT,
    I64,
    LEVELS,
    Mask,
    is_absent,
)
from inspector.store.rollup import (
    Buckets,
    combine,
    concatenate,
    decode_roll,
)

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A database, and where sentences about its damages go."""

    db: sqlite3.Connection
    name: str
    report: Report
    strict: bool = False

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        """All rows of a query; none, and a report, when the file cannot be read there.

        A strict source, which the writer takes up a file with, raises sqlite3.Error instead.
        """
        try:
            return self.db.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            if self.strict:
                raise
            self.report(f"A part of {self.name} cannot be read ({error}); the rest is shown.")
            return []


def count_rows(source: Source, group: str) -> int:
    found = source.rows(
        "SELECT row + n FROM chunk WHERE grp=? AND stripe=0 ORDER BY row DESC LIMIT 1", group
    )
    return int(found[0][0]) if found else 0


def row_range(source: Source, group: str, first: int | None, last: int | None) -> tuple[int, int]:
    """Rows [lo, hi) whose steps lie in [first, last]; None leaves an end open."""
    total = count_rows(source, group)
    lo = 0 if first is None else _row_of_step(source, group, first, "left", total)
    hi = total if last is None else _row_of_step(source, group, last, "right", total)
    return lo, max(lo, hi)


def _row_of_step(source: Source, group: str, step: int, side: str, total: int) -> int:
    found = source.rows(
        "SELECT row, n, first, steps FROM chunk WHERE grp=? AND stripe=0 AND last>=? "
        "ORDER BY last LIMIT 1",
        group,
        step,
    )
    if not found:
        return total
    row, count, first, packed = found[0]
    steps = np.arange(first, first + count) if packed is None else np.frombuffer(packed, "<i8")
    return int(row) + int(np.searchsorted(steps, step, "left" if side == "left" else "right"))


def raw(source: Source, group: str, columns: I64, lo: int, hi: int) -> tuple[I64, I64, F32]:
    """Row numbers [m], steps [m] and values [k, m] of rows [lo, hi), for ascending columns."""
    values: F32 = np.full((len(columns), hi - lo), ABSENT, np.float32)
    steps: I64 = np.zeros(hi - lo, np.int64)
    have: Mask = np.zeros(hi - lo, np.bool_)
    for stripe, inner, where in stripes(columns):
        for row, count, first, crc, packed, blob in source.rows(
            "SELECT row, n, first, crc, steps, v FROM chunk "
            "WHERE grp=? AND stripe=? AND row>? AND row<? ORDER BY row",
            group, stripe, lo - CHUNK_ROWS, hi,
        ):  # fmt: skip
            decoded = decode_chunk(count, first, crc, packed, blob)
            if decoded is None:
                source.report(_damaged(source.name, group, first, count))
                continue
            start, stop = max(lo, row), min(hi, row + count)
            if start >= stop:
                continue
            inside = inner < len(decoded[1])
            values[where[inside], start - lo : stop - lo] = decoded[1][
                inner[inside], start - row : stop - row
            ]
            steps[start - lo : stop - lo] = decoded[0][start - row : stop - row]
            have[start - lo : stop - lo] = True
    rows = np.flatnonzero(have)
    if len(rows) < len(have):
        steps, values = steps[rows], values[:, rows]
    return rows + lo, steps, values


def walls(source: Source, group: str, lo: int, hi: int) -> F64:
    """Seconds since 1970 of rows [lo, hi); NaN where a chunk is missing."""
    times: F64 = np.full(hi - lo, np.nan)
    for row, count, begin, end in source.rows(
        "SELECT row, n, t0, t1 FROM chunk WHERE grp=? AND stripe=0 AND row>? AND row<? "
        "ORDER BY row",
        group, lo - CHUNK_ROWS, hi,
    ):  # fmt: skip
        even = np.linspace(begin, end, count) if count > 1 else np.array([end])
        start, stop = max(lo, row), min(hi, row + count)
        times[start - lo : stop - lo] = even[start - row : stop - row]
    return times


def _damaged(name: str, group: str, first: int, count: int) -> str:
    return (
        f"{count} rows of {group} from step {first} in {name} are damaged "
        "(their checksum is wrong) and left out."
    )


def cover(
    source: Source, group: str, columns: I64, level: int, lo: int, hi: int
) -> Iterator[tuple[I64, Buckets]]:
    """Buckets [k, m] that cover rows [lo, hi) in order, each part with its first row numbers."""
    if lo >= hi:
        return
    if level == 0:
        rows, steps, values = raw(source, group, columns, lo, hi)
        yield rows, _single(steps, values)
        return
    size = LEVELS[level - 1]
    span = FANOUT * size
    at = lo
    whole = _rolls(source, group, columns, level, -(-lo // span) * span, hi // span * span)
    for row, buckets in whole:
        yield from cover(source, group, columns, level - 1, at, row)
        if buckets is not None:
            yield np.arange(row, row + span, size), buckets
        at = row + span
    yield from cover(source, group, columns, level - 1, at, hi)


def _single(steps: I64, values: F32) -> Buckets:
    """Buckets of one row each."""
    good = np.isfinite(values)
    kept = np.where(good, values, np.float32(np.nan))
    nonfinite = (~good & ~is_absent(values)).astype(np.int32)
    return Buckets(steps, steps, kept, kept, kept, good.astype(np.int32), nonfinite)


def _rolls(
    source: Source, group: str, columns: I64, level: int, lo: int, hi: int
) -> Iterator[tuple[int, Buckets | None]]:
    """The stored rows of a level within [lo, hi), those with a damaged stripe left out.

    None stands for rows from before the columns existed.
    """
    if lo >= hi:
        return
    found: dict[int, list[tuple[I64, I64, Buckets]]] = {}
    bad: set[int] = set()
    for stripe, inner, where in stripes(columns):
        for row, crc, steps, blob in source.rows(
            "SELECT row, crc, steps, v FROM roll "
            "WHERE grp=? AND level=? AND stripe=? AND row>=? AND row<? ORDER BY row",
            group, level, stripe, lo, hi,
        ):  # fmt: skip
            decoded = decode_roll(crc, steps, blob)
            if decoded is None:
                bad.add(row)
                source.report(
                    f"A summary of {group} from step {_step(steps)} in {source.name} is damaged; "
                    "finer data is read instead."
                )
            else:
                found.setdefault(row, []).append((inner, where, decoded))
    for (row,) in source.rows(
        "SELECT row FROM roll WHERE grp=? AND level=? AND stripe=0 AND row>=? AND row<? "
        "ORDER BY row",
        group, level, lo, hi,
    ):  # fmt: skip
        if row not in bad:
            yield row, _assemble(found[row], len(columns)) if row in found else None


def _step(steps: bytes) -> int:
    return int(np.frombuffer(steps[:8], "<i8")[0]) if len(steps) >= 8 else 0


def _assemble(parts: list[tuple[I64, I64, Buckets]], count: int) -> Buckets:
    nan, none = np.float32(np.nan), np.int32(0)
    whole = Buckets(
        parts[0][2].first,
        parts[0][2].last,
        np.full((count, FANOUT), nan),
        np.full((count, FANOUT), nan),
        np.full((count, FANOUT), nan),
        np.full((count, FANOUT), none),
        np.full((count, FANOUT), none),
    )
    for inner, where, part in parts:
        inside = inner < len(part.low)
        for name in ("low", "high", "mean", "finite", "nonfinite"):
            getattr(whole, name)[where[inside]] = getattr(part, name)[inner[inside]]
    return whole


def buckets(
    source: Source, group: str, columns: I64, lo: int, hi: int, max_points: int
) -> tuple[int, Buckets]:
    """Rows per bucket, and at most ``max_points`` buckets [k, m] of rows [lo, hi).

    Buckets begin at multiples of their size, so that they stand still while a run grows.
    """
    size = bucket_size(lo, hi, max_points)
    level = sum(size >= level for level in LEVELS)
    parts = list(cover(source, group, columns, level, lo, hi))
    if not parts:
        return size, _single(np.empty(0, np.int64), np.empty((len(columns), 0), np.float32))
    rows = np.concatenate([part[0] for part in parts])
    fine = concatenate([part[1] for part in parts], axis=1)
    if size == 1 or not len(rows):
        return size, fine
    starts = np.flatnonzero(np.diff(rows // size, prepend=-1))
    return size, combine(fine, starts, axis=1)


def bucket_size(lo: int, hi: int, max_points: int) -> int:
    """The least power of two whose aligned buckets over rows [lo, hi) are few enough."""
    size = 1
    while hi > lo and (hi - 1) // size - lo // size + 1 > max(1, max_points):
        size *= 2
    return size
