"""What makes a step: precision, accumulation, clipping."""

from __future__ import annotations

import dataclasses
from typing import Any

import streamlit as st

from inspector.commands import Clip
from inspector.config import PRECISIONS, RunConfig
from inspector.ui.fields import number_field

_PRECISIONS = {
    "float32": "float32: full precision",
    "bf16": "bf16: mixed, with the range of float32",
    "fp16": "fp16: mixed, with loss scaling",
}
_CLIPS: tuple[Clip, ...] = ("off", "norm", "value")


def steps_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``precision`` and the controls ``accumulate``, ``clip``, ``clip_threshold``."""
    controls = config.controls
    first, second, third = st.columns(3, gap="medium")
    with first:
        precision = st.selectbox(
            "Precision",
            PRECISIONS,
            index=PRECISIONS.index(config.precision),
            format_func=lambda name: _PRECISIONS.get(name, name),
            key=f"{key}/precision",
            help="Mixed precision computes forward passes in 16 bits under autocast: faster on a "
            "GPU, half the memory for activations. Weights stay float32. fp16 multiplies the loss "
            "so that small gradients survive, and skips a step whose gradients overflow.",
        )
    with second:
        accumulate = number_field(
            "Backward passes a step",
            controls.accumulate,
            least=1,
            key=f"{key}/accumulate",
            help="Gradient accumulation: gradients of so many batches are averaged before the "
            "optimizer steps, as if the batch were that many times larger, in the memory of one.",
        )
        if accumulate > 1:
            st.caption(f"Acts as a batch of {accumulate * config.batch_size:,}.")
    with third:
        clip = st.segmented_control(
            "Clip gradients",
            _CLIPS,
            default=controls.clip,
            required=True,
            key=f"{key}/clip",
            help="norm scales all gradients together when their L2 norm is above the threshold, "
            "and so keeps their direction; value cuts each number off.",
        )
        threshold = controls.clip_threshold
        if clip != "off":
            threshold = number_field(
                "Clip above", threshold, least=1e-9, format="%.6g", key=f"{key}/above",
                help="A norm around 1 is usual.",
            )  # fmt: skip
    made = dataclasses.replace(controls, accumulate=accumulate, clip=clip, clip_threshold=threshold)
    return {"precision": precision, "controls": made}
