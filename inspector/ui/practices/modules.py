"""Modules of the chosen model, to be named in forms: found without data, and without drawing."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import streamlit as st

from inspector import catalog
from inspector.config import RunConfig
from inspector.errors import StoreError
from inspector.store.layout import run_path
from inspector.store.reader import Run
from inspector.ui import context
from inspector.ui.own.places import stamp

_LOOKED_AT = 20  # newest runs of the same model


class Module(NamedTuple):
    """A module by its path: its type, whether it has parameters of its own, or inside it."""

    path: str
    type: str
    trained: bool
    holds: bool


def modules_of(config: RunConfig) -> list[Module]:
    """Every module but the model itself; empty where it can be known only from the data."""
    path = config.model.partition(":")[2].rpartition(":")[0]
    version = json.dumps(
        [config.model, config.model_args, config.data, config.data_args, config.code, stamp(path)],
        default=str,
    )
    kept: dict[str, list[Module]] = st.session_state.setdefault("practices/modules", {})
    if version not in kept:
        kept[version] = _built(config) or _recorded(config)
    return kept[version]


def _built(config: RunConfig) -> list[Module]:
    """The model on PyTorch's ``meta`` device: shapes alone, no memory, no random numbers."""
    source = catalog.DATA.get(config.data)
    if source is None:
        return []
    import torch

    from inspector.training import runner
    from inspector.training.models import build_model
    from inspector.training.own.code import find_own

    if catalog.is_own(config.model) and runner.current() is not None:
        return []  # the user's own code might draw random numbers that the run there needs
    try:
        plain = RunConfig(**{**_fields(config), "weights": ""})
        with torch.device("meta"):
            model = build_model(plain, source, find_own(plain).model)
    except Exception:  # a start says what is wrong with it
        return []
    return [
        Module(
            name,
            type(module).__name__,
            any(True for _ in module.parameters(recurse=False)),
            any(True for _ in module.parameters()),
        )
        for name, module in model.named_modules()
        if name
    ]


def _recorded(config: RunConfig) -> list[Module]:
    """As the newest run of the same model saw them."""
    same = [run for run in context.summaries() if run.config.get("model") == config.model]
    for summary in same[:_LOOKED_AT]:
        try:
            with Run(run_path(context.runs_dir(), summary.name)) as run:
                found = recorded_modules(run)
        except StoreError:
            continue
        if found:
            return found
    return []


def recorded_modules(run: Run) -> list[Module]:
    """Modules of a run, as its document of kind ``modules`` lists them."""
    listed = (run.document("modules") or {}).get("modules", [])
    parents = {item["path"].rpartition(".")[0] for item in listed}
    return [
        Module(
            item["path"],
            item.get("type", ""),
            bool(item.get("parameters")) and item["path"] not in parents,
            bool(item.get("parameters")),
        )
        for item in listed
        if item.get("path")
    ]


def path_choice(
    label: str, modules: list[Module], current: list[str], *, key: str, text: str
) -> list[str]:
    """A field of module paths; others can be typed."""
    types = {module.path: module.type for module in modules if module.holds}
    paths = [*types, *(path for path in current if path not in types)]
    return [
        str(path)
        for path in st.multiselect(
            label,
            paths,
            default=current,
            format_func=lambda path: f"{path} ({types[path]})" if path in types else path,
            accept_new_options=True,
            placeholder="none",
            key=key,
            help=text,
        )
    ]


def _fields(config: RunConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in RunConfig.__slots__}
