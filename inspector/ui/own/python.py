"""The form for a name in a user's own Python: where it is, which it is, and its arguments."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from inspector.errors import InspectorError
from inspector.ui.context import escape
from inspector.ui.editor import editor
from inspector.ui.own.places import path_field, stamp

if TYPE_CHECKING:
    from inspector.training.own.arguments import Argument

_PLACES = {"file": "Python file", "import": "Importable name", "code": "Typed here"}
_COLUMNS = 4
SIZES = (
    "in_features", "in_channels", "image_size", "sequence_length", "vocab_size", "out_features",
    "num_classes",
)  # fmt: skip
"""Arguments that are filled in from the data when they are left empty."""


def reference_fields(
    current: str, code: str, template: str, key: str, *, places: tuple[str, ...] = tuple(_PLACES)
) -> tuple[str, str]:
    """A reference and the typed code; the reference is empty while something is missing."""
    kind, _, rest = current.partition(":")
    place = st.segmented_control(
        "Where it is",
        places,
        default=kind if kind in places else places[0],
        format_func=lambda name: _PLACES[name],
        required=True,
        key=f"{key}/place",
    )
    before, _, name = rest.rpartition(":") if place == kind and kind != "code" else ("", "", rest)
    if place == "import":
        text = st.text_input(
            "Module and name",
            rest if kind == "import" else "",
            placeholder="package.module:Name",
            key=f"{key}/import",
        ).strip()
        return (f"import:{text}" if ":" in text else ""), code
    if place == "code":
        typed = editor(code or template, revision=0, error_line=0, key=f"{key}/code").code
        code = typed if typed is not None else code or template
        return _named("code", code, name if kind == "code" else "", f"{key}/typed"), code
    left, right = st.columns(2, gap="medium")
    with left:
        path = path_field("Python file", before, (".py",), f"{key}/path")
    with right:
        source = _read(path)
        reference = _named(f"file:{path}", source, name, f"{key}/name") if source else ""
    if path and not source:
        st.error(escape(f"There is no readable .py file at {path}."), icon=":material/block:")
    elif path:
        edited = time.strftime("%H:%M:%S", time.localtime(stamp(path)))
        st.caption(f"Read anew for each run; last edited at {edited}.")
    return reference, code


def argument_fields(reference: str, code: str, given: dict[str, Any], key: str) -> dict[str, Any]:
    """Typed fields for the arguments of what a reference leads to; what differs from the defaults.

    Raises:
        InspectorError: the source cannot be loaded.
    """
    found = _inspection(reference, code)
    if found.about:
        st.caption(escape(found.about))
    if found.own_step:
        st.caption("Its own training\\_step computes the loss, unless you choose a task below.")
    return grid(found.arguments, given, key)


def grid(arguments: Sequence[Argument], given: dict[str, Any], key: str) -> dict[str, Any]:
    """Typed fields side by side; what differs from the defaults."""
    values: dict[str, Any] = {}
    for first in range(0, len(arguments), _COLUMNS):
        row = arguments[first : first + _COLUMNS]
        columns = st.columns(_COLUMNS, gap="medium", vertical_alignment="bottom")
        for column, argument in zip(columns, row, strict=False):
            with column:
                value = field(argument, given, f"{key}/{argument.name}")
            if value is not None and (argument.required or value != argument.default):
                values[argument.name] = value
    return values


def _named(prefix: str, source: str, current: str, key: str) -> str:
    from inspector.training.own.reference import names_in

    names = names_in(source)
    if not names:
        st.error("The source defines no class or function.", icon=":material/block:")
        return ""
    chosen = st.selectbox(
        "Class or function",
        names,
        index=names.index(current) if current in names else 0,
        key=f"{key}/{prefix}",
    )
    return f"{prefix}:{chosen}"


def field(argument: Argument, given: dict[str, Any], key: str) -> Any:
    """The value that is filled in for one argument; None where nothing is."""
    value = given.get(argument.name, argument.default)
    name, about = argument.name, argument.about or None
    if argument.kind == "bool":
        return st.toggle(name, bool(value), key=key, help=about)
    if argument.kind == "choice":
        choices = [*argument.choices, *([None] if argument.optional else [])]
        place = choices.index(value) if value in choices else None
        return st.selectbox(name, choices, index=place, key=key, help=about)
    if argument.kind == "str":
        return st.text_input(name, value, key=key, help=about)
    if argument.kind in ("int", "float"):
        whole = argument.kind == "int"
        hint = "from the data" if name in SIZES else "needed" if argument.required else "None"
        # Sizes stay empty, so that other data is not refused later.
        shown = given.get(name) if name in SIZES else value
        return st.number_input(
            name,
            value=shown if shown is None else (int(shown) if whole else float(shown)),
            step=1 if whole else None,
            format=None if whole else "%.6g",
            placeholder=hint,
            key=key,
            help=about,
        )
    return _json(argument, value, key)


def _json(argument: Argument, value: Any, key: str) -> Any:
    from inspector.training.own.arguments import is_json

    if not is_json(value):
        st.text_input(argument.name, str(value)[:80], disabled=True, key=key)
        return None
    text = st.text_input(
        argument.name,
        "" if argument.required and value is None else json.dumps(value),
        key=key,
        help=argument.about or "A JSON value, such as [3, 4], true or null.",
    )
    try:
        return json.loads(text) if text.strip() else None
    except ValueError:
        st.error("Not JSON: texts need quotes.", icon=":material/block:")
        return None


def _inspection(reference: str, code: str) -> Any:
    """Executed once for each version of the source, not at every redraw of the page."""
    from inspector.training.own.preview import inspect_reference

    path = reference.partition(":")[2].rpartition(":")[0]
    version = (reference, code if reference.startswith("code:") else "", stamp(path))
    kept = st.session_state.setdefault("own/inspected", {})
    if version not in kept:
        try:
            kept[version] = inspect_reference(reference, code)
        except InspectorError as error:
            kept[version] = error
    if isinstance(kept[version], InspectorError):
        raise kept[version]
    return kept[version]


def _read(path: str) -> str:
    if not path or "://" in path:
        return ""
    try:
        file = Path(path).expanduser()
        return file.read_text("utf-8") if file.suffix == ".py" and file.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
