"""The learning rate that a schedule will give, as a small picture."""

from __future__ import annotations

import json
import math
from typing import Any

import streamlit as st

from inspector.charts.sparkline import sparkline
from inspector.errors import CommandError
from inspector.ui.context import escape

_MOST = 1000
_COUNTS = ("step_size", "T_max", "total_steps", "warmup_steps")


def draw(
    schedule: dict[str, Any] | None,
    lr: float,
    steps: int,
    steps_per_epoch: int,
    *,
    ongoing: bool = False,
    begin: int = 0,
    width: int = 260,
    most: int = _MOST,
) -> None:
    """Draws the curve, or says why there is none.

    Args:
        lr: in force; at the start of a run the peak of a schedule that warms up.
        steps: optimizer steps ahead.
        steps_per_epoch: 0 if it is not known.
        begin: the step it begins at, for the words below the curve.
        most: steps computed one by one; a longer run is computed in larger strides.
    """
    try:
        rates = _rates(json.dumps(schedule), lr, steps, steps_per_epoch, ongoing, most)
    except CommandError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    if not rates:
        return
    # As a picture: st.html takes SVG out.
    st.image(
        sparkline(
            rates,
            dark=st.context.theme.type == "dark",
            width=width,
            height=96,
            under=(f"step {begin:,}: {rates[0]:.3g}", f"step {begin + steps:,}: {rates[-1]:.3g}"),
        ),
        width="stretch",
    )
    top = max(rates)
    if top > max(rates[0], rates[-1]) * 1.001:
        st.caption(f"Highest {top:.3g}.")
    if schedule and schedule.get("name") == "reduce_on_plateau":
        st.caption("It waits for the validation loss, so nothing can be drawn ahead.")


@st.cache_data(show_spinner=False, max_entries=256)
def _rates(
    schedule: str, lr: float, steps: int, steps_per_epoch: int, ongoing: bool, most: int
) -> list[float]:
    from inspector.training.schedules import preview, resolve

    given = resolve(
        json.loads(schedule), lr, steps=steps, steps_per_epoch=steps_per_epoch, ongoing=ongoing
    )
    stride = math.ceil(steps / most)
    if stride > 1:
        given = _coarse(given, stride)
        steps_per_epoch = max(1, round(steps_per_epoch / stride)) if steps_per_epoch else 0
    return preview(given, lr, max(1, steps // stride), steps_per_epoch, ongoing=ongoing)


def _coarse(resolved: dict[str, Any], stride: int) -> dict[str, Any]:
    """The schedule in strides of several steps; one by epochs stays as it is."""
    if resolved.get("unit") == "epoch":
        return resolved
    made = dict(resolved)
    for name in _COUNTS:
        if made.get(name):
            made[name] = max(1, round(made[name] / stride))
    if made.get("milestones"):
        made["milestones"] = sorted({max(1, round(m / stride)) for m in made["milestones"]})
    if made["name"] == "exponential":
        made["gamma"] = made["gamma"] ** stride
    return made
