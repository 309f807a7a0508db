"""Presets in words: the hint beside a run made from one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.presets import PRESETS, Preset
from inspector.views.compare_settings import differing, flat


def explain(config: dict[str, Any]) -> None:
    """What to notice, when the run was made from a preset."""
    preset = nearest(config)
    if preset is not None:
        st.caption(f"**{preset.title}.** {preset.notice}")


def nearest(config: dict[str, Any]) -> Preset | None:
    """The preset of the same model and data that differs in the fewest settings."""
    wanted = (config.get("model"), config.get("data"), config.get("model_args"))
    same = [
        preset
        for preset in PRESETS
        if (preset.config.model, preset.config.data, preset.config.model_args) == wanted
    ]
    own = flat(config)
    return min(
        same, key=lambda preset: len(differing([own, flat(preset.config.to_dict())])), default=None
    )
