"""All arguments of the chosen optimizer, and parameter groups with settings of their own."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.numerals import short
from inspector.ui.context import escape
from inspector.ui.fields import number_field
from inspector.ui.practices.arguments import class_fields
from inspector.ui.practices.modules import modules_of, path_choice

# In the first form, or nothing that a form can give.
_ELSEWHERE = frozenset({"params", "lr", "momentum", "weight_decay"})
_UNUSED = frozenset({"capturable", "differentiable", "maximize"})
_COMPUTED = frozenset({"foreach", "fused"})


def optimizer_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``optimizer_args`` and ``param_groups``; None while a value cannot be used."""
    from inspector.training.optimizers import CLASSES

    cls = CLASSES[config.optimizer]
    key = f"{key}/{config.optimizer}"
    st.caption(
        f"Arguments of `torch.optim.{cls.__name__}` besides those above; a changed one is passed "
        "to it as it stands."
    )
    shown = dict(config.optimizer_args)
    usual = class_fields(cls, shown, _ELSEWHERE | _UNUSED | _COMPUTED, key)
    with st.popover("How it is computed", icon=":material/memory:"):
        hidden = {name for name in _names(cls) if name not in _COMPUTED}
        computed = class_fields(cls, shown, hidden | {"params"}, key)
    groups = _groups(config, key)
    if usual is None or computed is None:
        return None
    return {"optimizer_args": {**usual, **computed}, "param_groups": groups}


def _names(cls: type) -> list[str]:
    from inspector.training.own.arguments import arguments

    return [argument.name for argument in arguments(cls)]


def _groups(config: RunConfig, key: str) -> list[dict[str, Any]]:
    """Groups by module; one without modules is still being filled in and left out."""
    st.markdown("**Parameter groups**")
    st.caption(
        "Modules whose parameters train with settings of their own, such as a smaller learning "
        "rate for a pretrained body. All others train with the settings above."
    )
    modules = modules_of(config)
    key = f"{key}/{config.model}"
    numbers: list[int] = st.session_state.setdefault(
        f"{key}/groups", list(range(len(config.param_groups)))
    )
    found = []
    for number in list(numbers):
        given = config.param_groups[number] if number < len(config.param_groups) else {}
        with st.container(horizontal=True, vertical_alignment="bottom"):
            made = _group(given, modules, f"{key}/group/{number}", config)
            if st.button("", icon=":material/close:", key=f"{key}/group/{number}/gone",
                         help="Removes this group."):  # fmt: skip
                numbers.remove(number)
                st.rerun()
        if made["modules"]:
            found.append(made)
    if st.button("Add a group", icon=":material/add:", key=f"{key}/group/add"):
        numbers.append(max(numbers, default=len(config.param_groups) - 1) + 1)
        st.rerun()
    twice = _twice(found)
    if twice:
        st.error(
            escape(f"{twice} is in two groups; a parameter can be in one only."),
            icon=":material/block:",
        )
        raise InspectorError("Parameter groups overlap; remove a module from one of them.")
    return found


def _group(given: dict[str, Any], modules: Any, key: str, config: RunConfig) -> dict[str, Any]:
    named = path_choice(
        "Modules", modules, list(given.get("modules", [])), key=f"{key}/modules",
        text="Every parameter inside these modules belongs to the group.",
    )  # fmt: skip
    made: dict[str, Any] = {
        name: value for name, value in given.items() if name not in ("lr", "weight_decay")
    }
    made["modules"] = named
    for name, label, otherwise in (
        ("lr", "Learning rate", config.lr),
        ("weight_decay", "Weight decay", config.weight_decay),
    ):
        value = number_field(
            label,
            None if given.get(name) is None else float(given[name]),
            least=0.0,
            format="%.6g",
            placeholder=short(otherwise, 6),
            key=f"{key}/{name}",
            width=150,
            help="Empty: as for all others.",
        )
        if value is not None:
            made[name] = value
    return made


def _twice(groups: list[dict[str, Any]]) -> str:
    seen: set[str] = set()
    for group in groups:
        for path in group["modules"]:
            if path in seen:
                return str(path)
        seen.update(group["modules"])
    return ""
