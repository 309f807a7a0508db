"""Presets in words: the gallery on the first page, the hint beside a run made from one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.presets import PRESETS, Preset


def explain(config: dict[str, Any]) -> None:
    """What to notice, when the run was made from a preset."""
    preset = _of(config)
    if preset is not None:
        st.caption(f"**{preset.title}.** {preset.notice}")


def _of(config: dict[str, Any]) -> Preset | None:
    wanted = (config.get("model"), config.get("data"), config.get("model_args"))
    for preset in PRESETS:
        made = preset.config
        if (made.model, made.data, made.model_args) == wanted:
            return preset
    return None
