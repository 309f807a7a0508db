"""How modules are initialised, by their type."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.ui.practices.modules import modules_of

_DEFAULT = "PyTorch's default"
_COLUMNS = 3
METHODS = {
    "xavier_uniform": "Xavier uniform: keeps the spread of a signal through tanh and sigmoid.",
    "xavier_normal": "Xavier normal: the same, from a normal distribution.",
    "kaiming_uniform": "Kaiming uniform: keeps the spread through ReLU.",
    "kaiming_normal": "Kaiming normal: the same, from a normal distribution.",
    "orthogonal": "Orthogonal: keeps lengths exactly; usual for recurrent nets.",
    "trunc_normal": "Truncated normal: as transformers begin, without outliers.",
    "normal": "Normal: mean 0, standard deviation 1; for comparison.",
    "uniform": "Uniform from 0 to 1; for comparison.",
    "zeros": "Zeros: nothing passes, and nothing is learnt. To see why it fails.",
    "constant": "Constant: all weights equal, so all units stay equal. To see why it fails.",
}
"""Methods and what they are for."""

_OF_VECTORS = ("normal", "uniform", "zeros", "constant")


def init_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``init``; None while a value cannot be used."""
    types = list(dict.fromkeys(module.type for module in modules_of(config) if module.trained))
    types += [name for name in config.init if name not in types]
    st.caption(
        "Weights are drawn anew by the method chosen for their module's type; biases become 0. "
        "The seed decides the numbers."
    )
    if not types:
        types = ["Linear", "Conv2d"]
    init: dict[str, Any] = {}
    for first in range(0, len(types), _COLUMNS):
        columns = st.columns(_COLUMNS, gap="medium")
        for column, name in zip(columns, types[first : first + _COLUMNS], strict=False):
            with column:
                how = _field(name, config.init.get(name), f"{key}/{config.model}/{name}")
            if how is not None:
                init[name] = how
    with st.popover("What they do", icon=":material/help:"):
        for text in METHODS.values():
            st.markdown(f"- {text}")
    return {"init": init}


def _field(name: str, given: Any, key: str) -> Any:
    """The method of one type; None for PyTorch's default. A dict keeps arguments it came with."""
    method = given.get("name") if isinstance(given, dict) else given
    choices = [_DEFAULT, *(_OF_VECTORS if "Norm" in name else METHODS)]
    if method and method not in choices:
        choices.append(method)
    chosen = st.selectbox(
        name,
        choices,
        index=choices.index(method) if method else 0,
        format_func=lambda choice: choice.replace("_", " "),
        key=key,
        help=f"For every {name} of the model.",
    )
    if chosen == _DEFAULT:
        return None
    return given if chosen == method else chosen
