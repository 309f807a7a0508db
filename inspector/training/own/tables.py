"""CSV and Parquet: columns become tensors, faults are named by row and column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from inspector.catalog import Kind
from inspector.errors import ConfigError, DataError
from inspector.numerals import short
from inspector.training.distribution import check_distributions
from inspector.training.own.files import MEMORY, local_file
from inspector.training.samples import Source

SUFFIXES = {"csv": (".csv", ".tsv", ".txt"), "parquet": (".parquet", ".pq")}
_CATEGORIES = 64  # different texts that a feature column may hold
_CLASSES = 50  # different whole numbers that are taken for classes when nobody says


def load_table(
    path: str,
    form: str,
    task: str,
    *,
    target: str | Sequence[str] = "",
    features: Sequence[str] = (),
    separator: str = "",
    missing: str = "refuse",
) -> Source:
    """Rows of a table as samples.

    Args:
        form: csv or parquet.
        target: the column to predict, or several; the last column when left out.
        features: columns to predict it from; when left out, every other column of numbers.
        separator: between the fields of a CSV; by default a tab in .tsv files, else a comma.
        missing: ``refuse`` rows with empty fields, or ``drop`` them.

    Raises:
        ConfigError: an argument cannot be used.
        DataError: the file cannot be read, or a field cannot be used; row and column are named.
    """
    if missing not in ("refuse", "drop"):
        raise ConfigError(f"missing must be refuse or drop, but got {missing!r}.")
    file = local_file(path, "a table", suffixes=SUFFIXES[form])
    table = read_table(file, form, separator)
    targets = _columns(table, [target] if isinstance(target, str) and target else target, file)
    targets = targets or [str(table.columns[-1])]
    chosen = _columns(table, features, file) or _numeric(table, targets)
    both = sorted(set(chosen) & set(targets))
    if both:
        raise ConfigError(f"Column {both[0]!r} is both feature and target; leave it out of one.")
    if not chosen:
        only = len(targets) == len(table.columns)
        remedy = (
            "a table needs one column more than it is to predict; check the separator."
            if only
            else "name text columns in features to have each value become a column."
        )
        raise DataError(
            f"Expected columns of numbers beside {', '.join(targets)} in {file}, but there are "
            f"{'no others' if only else 'none'}; {remedy}"
        )
    notes: tuple[str, ...] = ()
    empty = table[[*chosen, *targets]].isna().any(axis=1)
    count = int(empty.sum())
    if missing == "drop" and count:
        notes = (
            "1 row with empty fields was left out."
            if count == 1
            else f"{count:,} rows with empty fields were left out.",
        )
        table = table[~empty]
    elif count:
        row = int(np.flatnonzero(empty.to_numpy())[0])
        column = next(name for name in (*chosen, *targets) if table[name].isna().iloc[row])
        raise DataError(
            f"{_place(file, table, row, form)}, column {column!r} is empty "
            f"({'the only row' if count == 1 else f'{count:,} rows'} with empty fields); "
            f"fill {'it' if count == 1 else 'them'}, or leave such rows out (missing=drop)."
        )
    if table.empty:
        raise DataError(f"Expected rows in {file}, but there are none.")
    blocks, names = [], []
    for name in chosen:
        block, parts = _feature(table, name, file, form)
        blocks.append(block)
        names += parts
    inputs = torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32))
    kind, values, classes = _target(table, targets, task, file, form)
    return Source(kind, "table", inputs, values, classes, tuple(names), notes)


def read_table(file: Path, form: str, separator: str = "", rows: int | None = None) -> pd.DataFrame:
    """The table, or its first rows. The file is opened here: pandas never sees a name or address.

    Raises:
        DataError: it is not such a file.
    """
    try:
        if form == "parquet":
            return _parquet(file, rows)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            table = pd.read_csv(
                lines, sep=separator or ("\t" if file.suffix == ".tsv" else ","), nrows=rows
            )
    except UnicodeDecodeError as error:
        raise DataError(
            f"Expected UTF-8 text in {file}, but byte {error.start} is something else; convert it."
        ) from error
    except (ValueError, OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        text = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read as {form}: {text}.") from error
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _parquet(file: Path, rows: int | None) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
        facts = opened.metadata
        claimed = facts.num_rows * max(facts.num_columns, 1) * 8
        if claimed > MEMORY:
            raise DataError(
                f"{file} claims {facts.num_rows:,} rows of {facts.num_columns} columns, more than "
                f"the {MEMORY:,} bytes that fit; write a Dataset of your own that reads parts."
            )
        table = next(opened.iter_batches(rows)) if rows else opened.read()
    except (pa.ArrowException, StopIteration) as error:
        raise DataError(f"{file} cannot be read as parquet: {error}.") from error
    frame = cast(pd.DataFrame, table.to_pandas(ignore_metadata=True))
    frame.columns = [str(name) for name in frame.columns]
    return frame


def guess_kind(column: pd.Series[Any]) -> Kind:
    """Classes for text, booleans and few whole numbers from 0 on; else numbers."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return "classification"
    values = column.dropna()
    whole = bool((values == np.floor(values)).all())
    few = 2 <= values.nunique() <= min(_CLASSES, max(2, len(values) // 4))
    return "classification" if whole and few and values.min() in (0, 1) else "regression"


def _columns(table: pd.DataFrame, wanted: str | Sequence[str], file: Path) -> list[str]:
    names = [wanted] if isinstance(wanted, str) and wanted else list(wanted)
    for name in names:
        if name not in table.columns:
            raise ConfigError(
                f"There is no column {name!r} in {file.name}; "
                f"its columns are {', '.join(map(str, table.columns[:30]))}."
            )
    return names


def _numeric(table: pd.DataFrame, targets: list[str]) -> list[str]:
    """Columns of numbers; one with a few fields that are none still counts, so that it is named."""
    return [
        name
        for name in table.columns
        if name not in targets and (_is_number(table[name]) or _mostly_numbers(table[name]))
    ]


def _is_number(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column)) and not pd.api.types.is_complex_dtype(column)


def _mostly_numbers(column: pd.Series[Any]) -> bool:
    if pd.api.types.is_datetime64_any_dtype(column):
        return False
    return bool(pd.to_numeric(column, errors="coerce").notna().mean() > 0.5)


def _feature(
    table: pd.DataFrame, name: str, file: Path, form: str
) -> tuple[np.ndarray[Any, Any], list[str]]:
    column = table[name]
    if _is_number(column) or _mostly_numbers(column):
        return _numbers(table, name, file, form)[:, None], [name]
    values = sorted(column.astype(str).unique())
    if len(values) > _CATEGORIES:
        raise DataError(
            f"Column {name!r} of {file.name} holds {len(values)} different texts, more than the "
            f"{_CATEGORIES} that can become columns; leave it out of features."
        )
    texts = column.astype(str).to_numpy()
    return (texts[:, None] == np.array(values)).astype(np.float32), [f"{name}={v}" for v in values]


def _numbers(table: pd.DataFrame, name: str, file: Path, form: str) -> np.ndarray[Any, Any]:
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    if len(wrong):
        field = table[name].iloc[int(wrong[0])]
        raise DataError(
            f"{_place(file, table, int(wrong[0]), form)}, column {name!r}: expected a finite "
            f"number, but got {str(field)[:60]!r} ({len(wrong)} such fields); mend the file."
        )
    return cast(np.ndarray[Any, Any], values)


def _target(
    table: pd.DataFrame, names: list[str], task: str, file: Path, form: str
) -> tuple[Kind, Tensor, tuple[str, ...]]:
    kind = task if task not in ("auto", "own", "reconstruction") else ""
    if not kind:
        kind = guess_kind(table[names[0]]) if len(names) == 1 else "regression"
    if kind == "classification":
        if len(names) > 1:
            raise ConfigError(
                f"A classification has one target column, but got {len(names)}; "
                "choose one, or the task multi_label."
            )
        column = table[names[0]]
        values = sorted(column.unique())
        if len(values) < 2:
            raise DataError(
                f"Expected two classes or more in column {names[0]!r} of {file.name}, but every "
                f"row holds {str(values[0])!r}; choose another target."
            )
        codes = pd.Categorical(column, categories=values).codes.astype(np.int64)
        return "classification", torch.from_numpy(codes), tuple(str(value) for value in values)
    if kind not in ("regression", "multi_label", "distribution"):
        raise ConfigError(f"A table cannot be used for the task {kind}; choose auto.")
    numbers = np.stack([_numbers(table, name, file, form) for name in names], axis=1)
    if kind == "distribution":
        shares = torch.from_numpy(numbers.astype(np.float32))
        check_distributions(shares, f"{', '.join(names)} in {file}")
        return "distribution", shares, tuple(names)
    if kind == "multi_label":
        wrong = np.argwhere((numbers != 0) & (numbers != 1))
        if len(wrong):
            row, place = wrong[0]
            raise DataError(
                f"{_place(file, table, int(row), form)}, column {names[place]!r}: expected 0 or 1, "
                f"but got {short(numbers[row, place], 6)}; "
                "choose the task regression for other numbers."
            )
        return "multi_label", torch.from_numpy(numbers.astype(np.float32)), tuple(names)
    return "regression", torch.from_numpy(numbers.astype(np.float32)), ()


def _place(file: Path, table: pd.DataFrame, row: int, form: str) -> str:
    """Where a row stands: its line in a CSV with one line a row, its number in a Parquet file."""
    number = int(table.index[row])
    return f"{file}, line {number + 2}" if form == "csv" else f"{file}, row {number}"
