"""The form for a data set of torchvision: its constructor's arguments as typed fields."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.ui.context import escape
from inspector.ui.own.python import grid


def torchvision_fields(config: RunConfig, data: str, version: int) -> dict[str, Any]:
    """What the form changes of a configuration.

    Raises:
        InspectorError: torchvision has no such set, or none of classes.
    """
    name = data.partition(":")[2]
    with st.container(border=True, key="torchvision-data"):
        st.markdown(f"**{escape(name)}** of torchvision")
        with st.spinner("Looking at its arguments …"):  # torchvision is imported at the first use
            from inspector.training.torchvision_sets import offered

            found = offered(name)
        # Where the constructor has no usual value, the first choice is one.
        usual = {one.name: one.choices[0] for one in found if one.required and one.choices}
        given = config.data_args if data == config.data else {}
        values = grid(found, usual | given, f"{data}/args/{version}")
        st.caption(
            "Downloaded once, at the first check or start. Normalise by the training part is "
            "under More."
        )
    return {"data_args": values}
