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
    from inspector.training.torchvision_sets import offered

    name = data.partition(":")[2]
    with st.container(border=True, key="torchvision-data"):
        st.markdown(f"**{escape(name)}** of torchvision")
        found = offered(name)
        values = grid(
            found, config.data_args if data == config.data else {}, f"{data}/args/{version}"
        )
        st.caption(
            "Downloaded once, at the first check or start. Normalise by the training part is "
            "under More."
        )
    needed = {one.name: one.choices[0] for one in found if one.required and one.choices}
    return {"data_args": {**needed, **values}}
