"""The form for data of one's own: a table, images, arrays, a text, or a Dataset in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.fields import number_field
from inspector.ui.own.places import path_field, stamp
from inspector.ui.own.python import argument_fields, reference_fields

_FORMS = {
    "table": "Table",
    "folder": "Images",
    "npz": "NumPy",
    "text": "Text",
    "python": "Python",
}
_TABLES = (".csv", ".tsv", ".parquet", ".pq")
TEMPLATE = '''import torch
from torch.utils.data import TensorDataset


def data(samples: int = 500):
    """Points in the plane; the class is the quadrant.

    Args:
        samples: how many points.
    """
    points = torch.randn(samples, 2)
    classes = (points[:, 0] > 0).long() + 2 * (points[:, 1] > 0).long()
    return TensorDataset(points, classes)
'''

Fields = dict[str, Any]


def data_fields(config: RunConfig, code: str, version: int) -> Fields | None:
    """What the form changes of a configuration; None while something is missing.

    Args:
        code: typed for the model, which the data may be in as well.

    Raises:
        InspectorError: the source or the file cannot be read.
    """
    kind, _, path = config.data.partition(":")
    form = {"csv": "table", "parquet": "table", "file": "python", "import": "python",
            "code": "python"}.get(kind, kind)  # fmt: skip
    key = f"own-data/{version}"
    with st.container(border=True, key="own-data"):
        st.markdown("**Your own data**")
        chosen = st.segmented_control(
            "What it is",
            list(_FORMS),
            default=form if form in _FORMS else "table",
            format_func=lambda name: _FORMS[name],
            required=True,
            key=f"{key}/form",
        )
        current = path if chosen == form else ""
        if chosen == "python":
            return _python(config, code, key)
        read = {"table": _table, "folder": _folder, "npz": _arrays, "text": _text}[chosen]
        return read(config, current, f"{key}/{chosen}")


def _python(config: RunConfig, code: str, key: str) -> Fields | None:
    st.caption("A Dataset, a DataLoader, or a pair of them for training and validation.")
    reference, typed = reference_fields(config.data, code, TEMPLATE, key)
    if not reference:
        return None
    given = config.data_args if reference == config.data else {}
    args = argument_fields(reference, typed, given, f"{key}/{reference}")
    return {"data": reference, "data_args": args, "code": typed}


def _table(config: RunConfig, current: str, key: str) -> Fields | None:
    left, right = st.columns([2, 1], gap="medium")
    with left:
        path = path_field("CSV or Parquet file", current, _TABLES, f"{key}/path")
    if not path:
        return None
    form = "parquet" if Path(path).suffix in (".parquet", ".pq") else "csv"
    args = config.data_args if config.data == f"{form}:{path}" else {}
    separator = ""
    if form == "csv":
        names = {"": "by the name", ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
        with right:
            separator = st.selectbox(
                "Separator",
                list(names),
                index=list(names).index(args.get("separator", "")),
                format_func=lambda mark: names[mark],
                key=f"{key}/separator/{path}",
            )
    columns = _columns(path, form, separator, stamp(path))
    given = {"separator": separator} if separator else {}
    given |= _targets(columns, args, f"{key}/{path}/{separator}")
    drop = st.toggle(
        "Leave out rows with empty fields",
        args.get("missing") == "drop",
        key=f"{key}/missing/{path}",
    )
    if drop:
        given["missing"] = "drop"
    return {"data": f"{form}:{path}", "data_args": given}


def _targets(columns: list[str], args: Fields, key: str) -> Fields:
    before = args.get("target", columns[-1])
    before = [before] if isinstance(before, str) else before
    left, right = st.columns([1, 2], gap="medium")
    with left:
        target = st.multiselect(
            "Predict",
            columns,
            default=[name for name in before if name in columns],
            key=f"{key}/target",
            help="Several columns are several numbers, or labels with the task multi_label.",
        )
    with right:
        features = st.multiselect(
            "From",
            [name for name in columns if name not in target],
            default=[name for name in args.get("features", []) if name in columns],
            placeholder="every other column of numbers",
            key=f"{key}/features",
            help="A text column that is chosen here becomes one column for each value.",
        )
    given: Fields = {"target": target[0] if len(target) == 1 else target}
    return given | ({"features": features} if features else {})


def _folder(config: RunConfig, current: str, key: str) -> Fields | None:
    path = path_field("Folder with one subfolder per class", current, (), f"{key}/path")
    if not path:
        return None
    args = config.data_args if config.data == f"folder:{path}" else {}
    left, right = st.columns(2, gap="medium", vertical_alignment="bottom")
    with left:
        size = number_field(
            "Pixels on a side", int(args.get("size", 64)), least=8, most=1024, key=f"{key}/size"
        )
    with right:
        grey = st.toggle("One channel (grey)", args.get("grey", False), key=f"{key}/grey")
    return {"data": f"folder:{path}", "data_args": {"size": size, "grey": grey}}


def _arrays(config: RunConfig, current: str, key: str) -> Fields | None:
    path = path_field("NumPy file with arrays", current, (".npz",), f"{key}/path")
    if not path:
        return None
    args = config.data_args if config.data == f"npz:{path}" else {}
    headers = _headers(path, stamp(path))
    usual = {"inputs": ("x", "inputs", "images", "data"), "targets": ("y", "targets", "labels")}
    given: Fields = {}
    for column, (argument, guesses) in zip(st.columns(2), usual.items(), strict=True):
        guess = args.get(argument) or next((n for n in headers if n.lower() in guesses), None)
        with column:
            given[argument] = st.selectbox(
                argument.capitalize(),
                list(headers),
                index=list(headers).index(guess) if guess in headers else 0,
                format_func=lambda name: f"{name}  {headers[name]}",
                key=f"{key}/{argument}/{path}",
            )
    return {"data": f"npz:{path}", "data_args": given}


def _text(config: RunConfig, current: str, key: str) -> Fields | None:
    path = path_field("Text file", current, (".txt", ".md", ".csv"), f"{key}/path")
    if not path:
        return None
    args = config.data_args if config.data == f"text:{path}" else {}
    length = number_field(
        "Characters in a sample", int(args.get("length", 64)), least=1, key=f"{key}/length"
    )
    return {"data": f"text:{path}", "data_args": {"length": length}}


@st.cache_data(show_spinner=False, max_entries=32)
def _columns(path: str, form: str, separator: str, stamp: float) -> list[str]:  # noqa: ARG001
    """The columns of a table; ``stamp`` makes an edited file be read again."""
    from inspector.training.own.files import local_file
    from inspector.training.own.tables import SUFFIXES, read_table

    file = local_file(path, "a table", suffixes=SUFFIXES[form])
    found = [str(name) for name in read_table(file, form, separator, rows=200).columns]
    if not found:
        raise InspectorError(f"Expected columns in {path}, but there are none.")
    return found


@st.cache_data(show_spinner=False, max_entries=32)
def _headers(path: str, stamp: float) -> dict[str, str]:  # noqa: ARG001
    """The arrays of a file and their shapes."""
    from inspector.training.own.arrays import read_headers
    from inspector.training.own.files import local_file

    file = local_file(path, "arrays", suffixes=(".npz",))
    return {name: f"{shape} {dtype}" for name, (shape, dtype) in read_headers(file).items()}
