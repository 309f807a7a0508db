"""The practices of training as forms: folded away, one tab each, drawn only while looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.ui.practices.checks import checks_fields
from inspector.ui.practices.init import init_fields
from inspector.ui.practices.keep import keep_fields
from inspector.ui.practices.loss import loss_fields
from inspector.ui.practices.optimizer import optimizer_fields
from inspector.ui.practices.regularise import regularise_fields
from inspector.ui.practices.schedule import schedule_fields
from inspector.ui.practices.steps import steps_fields

Fields = dict[str, Any]

_TABS: dict[str, Callable[[RunConfig, str], Fields | None]] = {
    "Optimizer": optimizer_fields,
    "Schedule": schedule_fields,
    "Loss": loss_fields,
    "Initialisation": init_fields,
    "Steps": steps_fields,
    "Regularisation": regularise_fields,
    "Checkpoints": keep_fields,
    "Checks": checks_fields,
}


def practice_fields(config: RunConfig, version: int) -> Fields | None:
    """What the forms change of a configuration; None while a value cannot be used.

    Args:
        config: as filled in so far, so that the forms suit the optimizer and loss just chosen.
    """
    key = f"practices/{version}"
    folded = st.expander(
        "Practices: schedule, loss, initialisation, precision, checkpoints …",
        icon=":material/school:",
        key=key,
        on_change="rerun",
    )
    if not folded.open:
        return {}
    fields: Fields = {}
    with folded:
        tabs = st.tabs(list(_TABS), key=f"{key}/tab", on_change="rerun")
    for tab, (title, form) in zip(tabs, _TABS.items(), strict=True):
        if tab.open:
            with tab:
                made = form(config, f"{key}/{title}")
            if made is None:
                return None
            fields |= made
    return fields
