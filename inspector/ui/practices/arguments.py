"""Typed fields for the arguments of a class of PyTorch, found by inspection."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import streamlit as st

from inspector.ui.context import escape

if TYPE_CHECKING:
    from inspector.training.own.arguments import Argument

_COLUMNS = 3
_INVALID = object()

HELP = {
    "amsgrad": "Divides by the largest squared gradient so far, so that steps never grow back.",
    "alpha": "How slowly the average of squared gradients forgets: 0.99 looks back 100 steps.",
    "beta": "Errors smaller than this count squared, larger ones by their size.",
    "betas": "How slowly the averages of gradients and of squared gradients forget.",
    "blank": "The class that means 'no symbol here'.",
    "capturable": "Allows the step to be recorded as a CUDA graph.",
    "centered": "Divides by the variance of gradients, not by their mean square.",
    "dampening": "Weakens each new gradient's share in the momentum.",
    "decoupled_weight_decay": "Shrinks the weights directly, as AdamW does, not through gradients.",
    "differentiable": "Lets gradients flow through the optimizer's own step.",
    "eps": "Added to the denominator, so that nothing is divided by zero.",
    "etas": "Factors by which step sizes shrink and grow.",
    "foreach": "Updates all parameters together: faster, with a little more memory.",
    "fused": "Updates all parameters in one kernel: fastest where the device has one.",
    "ignore_index": "Targets of this number are left out of the loss.",
    "initial_accumulator_value": "What the sum of squared gradients starts at.",
    "label_smoothing": "Takes this share of certainty away from the right class: 0.1 is usual.",
    "log_target": "The targets are logarithms of probabilities.",
    "lr_decay": "Divides the learning rate by 1 + lr_decay × step.",
    "maximize": "Climbs instead of descending.",
    "momentum_decay": "How fast the momentum of NAdam fades in.",
    "nesterov": "Looks ahead along the momentum before it takes the gradient; needs momentum.",
    "pos_weight": "How much more a positive label counts; one number per label, as a list.",
    "step_sizes": "Least and greatest step of each weight.",
    "weight": "How much each class counts: one number per class, as a list such as [1, 2.5].",
    "zero_infinity": "Infinite losses, of targets longer than the input, count as zero.",
}
"""Arguments in words of a beginner; others show what PyTorch's documentation says."""


def class_fields(
    target: type, given: dict[str, Any], hidden: Collection[str], key: str
) -> dict[str, Any] | None:
    """What differs from the defaults; None while a field holds what cannot be used."""
    from inspector.training.own.arguments import arguments, is_json

    shown = [
        argument
        for argument in arguments(target)
        if argument.name not in hidden and not argument.required and is_json(argument.default)
    ]
    if not shown:
        st.caption("It has no further arguments.")
    values: dict[str, Any] = {}
    usable = True
    for first in range(0, len(shown), _COLUMNS):
        row = shown[first : first + _COLUMNS]
        for column, argument in zip(st.columns(_COLUMNS, gap="medium"), row, strict=False):
            with column:
                value = _field(argument, given.get(argument.name, argument.default), key)
            if value is _INVALID:
                usable = False
            elif value != _plain(argument.default):
                values[argument.name] = value
    return values if usable else None


def _field(argument: Argument, value: Any, key: str) -> Any:
    name = argument.name
    key = f"{key}/{name}"
    text = HELP.get(name) or escape(argument.about) or None
    if argument.kind == "bool" and not argument.optional:
        return st.toggle(name, bool(value), key=key, help=text)
    if isinstance(argument.default, (bool, type(None))) and argument.kind == "bool":
        return _perhaps(name, value, key, text)
    if argument.kind in ("int", "float") and not isinstance(argument.default, (list, tuple)):
        whole = argument.kind == "int"
        return st.number_input(
            name,
            value=None if value is None else int(value) if whole else float(value),
            step=1 if whole else None,
            format=None if whole else "%.6g",
            placeholder="not set",
            key=key,
            help=text,
        )
    if argument.kind == "str":
        return st.text_input(name, value or "", placeholder="not set", key=key, help=text) or None
    return _listed(argument, value, key, text)


def _perhaps(name: str, value: bool | None, key: str, text: str | None) -> bool | None:
    choices: dict[str, bool | None] = {"PyTorch decides": None, "on": True, "off": False}
    chosen = st.selectbox(
        name, list(choices), index=list(choices.values()).index(value), key=key, help=text
    )
    return choices[chosen]


def _listed(argument: Argument, value: Any, key: str, text: str | None) -> Any:
    """A list of numbers, or nothing."""
    plain = _plain(value)
    typed = st.text_input(
        argument.name,
        "" if plain is None else json.dumps(plain),
        placeholder="not set",
        key=key,
        help=text,
    ).strip()
    if not typed:
        return _plain(argument.default)
    try:
        read = json.loads(typed)
    except ValueError:
        read = typed
    default = argument.default
    length = len(default) if isinstance(default, (list, tuple)) else None
    perhaps = length is not None and None in default
    numbers = isinstance(read, list) and all(
        (isinstance(one, (int, float)) and not isinstance(one, bool)) or (perhaps and one is None)
        for one in read
    )
    if isinstance(read, (int, float)) and length is None:
        return read
    if not numbers or (length is not None and len(read) != length):
        wanted = f"{length} numbers" if length else "numbers"
        st.error(
            f"Expected {wanted} in brackets, such as [0.9, 0.999], but got {escape(typed[:40])}.",
            icon=":material/block:",
        )
        return _INVALID
    return read


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
