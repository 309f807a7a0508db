"""Encoding and decoding of raw rows: blocks in memory, chunk rows in the database.

A chunk is up to CHUNK_ROWS rows of one group, cut into stripes of STRIPE series. ``v`` is
series-major little-endian float32: ``frombuffer(v, "<f4").reshape(-1, n)`` has one line a series.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, CHUNK_ROWS, F32, I64, STRIPE

Statement = tuple[str, Sequence[object]]
_BEGAN = time.time() - time.monotonic()


def steady() -> float:
    """Seconds since 1970 by a clock that nobody sets while the process runs."""
    return _BEGAN + time.monotonic()


class Block:
    """Rows of one group and one tuple of keys, filled in place by the training thread."""

    __slots__ = ("count", "group", "keys", "start", "steps", "stop", "values", "width")

    def __init__(self, group: str, keys: Sequence[SeriesKey]) -> None:
        self.group = group
        self.keys = keys
        self.width = len(keys)
        self.steps: I64 = np.empty(CHUNK_ROWS, np.int64)
        self.values: F32 = np.empty((CHUNK_ROWS, self.width), np.float32)
        self.count = 0
        self.start = self.stop = steady()


def merge(blocks: list[Block], columns: list[slice | I64], width: int) -> tuple[I64, F32]:
    """Steps and rows (n × width) of consecutive blocks; what a block lacks is ABSENT."""
    first = blocks[0]
    whole = columns[0]
    if len(blocks) == 1 and isinstance(whole, slice) and whole == slice(0, width):
        return first.steps[: first.count], first.values[: first.count]
    rows = np.full((sum(block.count for block in blocks), width), ABSENT, np.float32)
    at = 0
    for block, place in zip(blocks, columns, strict=True):
        rows[at : at + block.count, place] = block.values[: block.count]
        at += block.count
    return np.concatenate([block.steps[: block.count] for block in blocks]), rows


def chunk_statement(
    group: str, row: int, steps: I64, rows: F32, start: float, stop: float
) -> Statement:
    """One INSERT for all stripes of a chunk: each extra statement would cost a wait for the GIL."""
    count, width = rows.shape
    first, last = int(steps[0]), int(steps[-1])
    packed = None if last - first == count - 1 else steps.tobytes()
    by_series = np.ascontiguousarray(rows.T)
    parameters: list[object] = []
    for stripe, at in enumerate(range(0, width, STRIPE)):
        part = by_series[at : at + STRIPE].data.cast("B")
        crc = checksum(packed, part)
        parameters += (group, stripe, row, count, first, last, start, stop, crc, packed, part)
    values = ",".join(["(?,?,?,?,?,?,?,?,?,?,?)"] * (len(parameters) // 11))
    return (
        "INSERT INTO chunk(grp, stripe, row, n, first, last, t0, t1, crc, steps, v) "
        f"VALUES {values}",
        parameters,
    )


def checksum(steps: bytes | None, values: bytes | memoryview) -> int:
    """CRC-32 of the stored steps (where there are any) followed by the values."""
    return zlib.crc32(values, zlib.crc32(steps) if steps is not None else 0)


def decode_chunk(
    count: int, first: int, crc: int, steps: bytes | None, values: bytes
) -> tuple[I64, F32] | None:
    """Steps (n) and values (series × n); None when the stored bytes are damaged."""
    if checksum(steps, values) != crc or count < 1 or len(values) % (4 * count):
        return None
    if steps is None:
        places: I64 = np.arange(first, first + count, dtype=np.int64)
    else:
        places = np.frombuffer(steps, "<i8")
    return places, np.frombuffer(values, "<f4").reshape(-1, count)


def stripes(columns: I64) -> Iterator[tuple[int, I64, I64]]:
    """For ascending columns: each stripe, the columns inside it, and their positions."""
    owners = columns // STRIPE
    for stripe in np.unique(owners):
        where = np.flatnonzero(owners == stripe)
        yield int(stripe), columns[where] - stripe * STRIPE, where
