"""Telemetry as a table: Parquet and CSV, long or wide, window by window.

Long: ``rank, step, wall, quantity, subject, value``, one line for each measurement. Wide: ``rank,
step, wall`` and one column a series (``loss``, ``grad_norm/layers.0.weight``), one line for each
step. ``wall`` is in seconds since 1970, ``value`` is the recorded float32. A measured NaN or
infinity is written as such; what was not measured has no line, or an empty (null) cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from inspector.exports.formats import Made, Request
from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, F32, F64, I64, is_absent
from inspector.store.reader import RawRows, Run
from inspector.views.modules import ROOT

_WORD = pa.dictionary(pa.int32(), pa.string())
_PLACE = [("rank", pa.int32()), ("step", pa.int64()), ("wall", pa.float64())]
LONG = pa.schema([*_PLACE, ("quantity", _WORD), ("subject", _WORD), ("value", pa.float32())])


def parquet(request: Request) -> Made:
    """One Parquet file, zstd-compressed."""

    def writer(schema: Any) -> Any:
        return pyarrow.parquet.ParquetWriter(request.out, schema, compression="zstd")

    return _write(request, writer)


def csv(request: Request) -> Made:
    """One CSV file with a header line; numbers are written so that reading gives them back."""
    return _write(request, lambda schema: pyarrow.csv.CSVWriter(request.out, schema))


def _write(request: Request, writer: Callable[[Any], Any]) -> Made:
    run = request.run
    columns = sorted({key for rank in run.ranks for key in run.keys(rank=rank)})
    wide = request.form == "wide"
    schema = wide_schema(columns) if wide else LONG
    lines = 0
    with writer(schema) as file:
        for rank, window in _windows(run):
            table = _wide(rank, window, columns, schema) if wide else _long(rank, window)
            file.write_table(table)
            lines += table.num_rows
    what = "one for each step" if wide else "one for each measurement"
    return Made(
        notes=(f"{lines:,} lines, {what}; {len(columns)} series.",),
        facts={"lines": lines, "series": len(columns)},
    )


def column(key: SeriesKey) -> str:
    """Name of a series in a wide table, in TensorBoard and in W&B."""
    return key.quantity if key.scope == "run" else f"{key.quantity}/{key.subject or ROOT}"


def wide_schema(keys: Iterable[SeriesKey]) -> Any:
    """Rank, step, wall and a column for each series."""
    return pa.schema([*_PLACE, *((column(key), pa.float32()) for key in keys)])


def _windows(run: Run) -> Iterator[tuple[int, list[RawRows]]]:
    for rank in run.ranks:
        for window in run.raw(rank=rank):
            yield rank, window


def _long(rank: int, window: list[RawRows]) -> Any:
    parts = [_measured(rank, rows) for rows in window]
    return pa.concat_tables([part for part in parts if part.num_rows] or [LONG.empty_table()])


def _measured(rank: int, rows: RawRows) -> Any:
    which, at = np.nonzero(~is_absent(rows.values))
    return pa.table(
        [
            pa.array(np.full(len(at), rank, np.int32)),
            pa.array(rows.steps[at]),
            pa.array(rows.walls[at]),
            _words(which, [key.quantity for key in rows.keys]),
            _words(which, [key.subject for key in rows.keys]),
            pa.array(rows.values[which, at]),
        ],
        schema=LONG,
    )


def _words(which: Any, words: list[str]) -> Any:
    distinct = list(dict.fromkeys(words))
    place = {word: at for at, word in enumerate(distinct)}
    codes = np.array([place[word] for word in words], np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(codes[which], pa.int32()), pa.array(distinct, pa.string())
    )


def _wide(rank: int, window: list[RawRows], columns: list[SeriesKey], schema: Any) -> Any:
    steps: I64 = np.unique(np.concatenate([rows.steps for rows in window]))
    walls: F64 = np.full(len(steps), np.nan)
    values: F32 = np.full((len(columns), len(steps)), ABSENT, np.float32)
    place = {key: at for at, key in enumerate(columns)}
    for rows in reversed(window):  # the first group's time counts
        at = np.searchsorted(steps, rows.steps)
        walls[at] = rows.walls
        lines: I64 = np.array([place[key] for key in rows.keys], np.int64)
        values[lines[:, None], at] = rows.values
    return pa.table(
        [
            pa.array(np.full(len(steps), rank, np.int32)),
            pa.array(steps),
            pa.array(walls),
            *(pa.array(line, mask=is_absent(line)) for line in values),
        ],
        schema=schema,
    )
