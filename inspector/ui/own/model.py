"""The form for a model of one's own."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector import catalog
from inspector.config import RunConfig
from inspector.ui.own.python import argument_fields, reference_fields

TEMPLATE = '''from torch import nn


class Net(nn.Module):
    """Two linear maps with ReLU between them.

    Args:
        in_features: numbers per sample.
        num_classes: classes to tell apart.
        hidden: width between the maps.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: int = 64):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_features, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x):
        return self.head(self.body(x))
'''


def model_fields(config: RunConfig, version: int) -> dict[str, Any] | None:
    """What the form changes of a configuration; None while something is missing.

    Raises:
        InspectorError: the source cannot be loaded.
    """
    own = catalog.is_own(config.model)
    key = f"own-model/{version}"
    with st.container(border=True, key="own-model"):
        st.markdown("**Your own model**")
        current = config.model if own else ""
        reference, code = reference_fields(current, config.code, TEMPLATE, key)
        if not reference:
            st.info(
                "Name a class, or a function that returns a module. Until then Start trains what "
                "the heading above says.",
                icon=":material/info:",
            )
            return None
        given = config.model_args if reference == config.model else {}
        args = argument_fields(reference, code, given, f"{key}/{reference}")
    return {"model": reference, "model_args": args, "code": code}
