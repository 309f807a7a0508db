"""The learning rates that a schedule will give, as a small picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import streamlit as st

from inspector.charts.sparkline import MOST_CURVES, Curve, sparkline
from inspector.errors import CommandError
from inspector.numerals import short
from inspector.ui.context import escape

_MOST = 1000
_COUNTS = ("step_size", "T_max", "total_steps", "warmup_steps")


def draw(
    schedule: dict[str, Any] | None,
    rates: Mapping[str, float],
    steps: int,
    steps_per_epoch: int,
    *,
    ongoing: bool = False,
    begin: int = 0,
    width: int = 260,
    most: int = _MOST,
) -> None:
    """Draws a curve for each rate, or says why there is none.

    Args:
        rates: in force in each parameter group, by its title; at the start of a run the peak of a
            schedule that warms up. What is left open goes by the first.
        steps: optimizer steps ahead.
        steps_per_epoch: 0 if it is not known.
        begin: the step it begins at, for the words below the curves.
        most: steps computed one by one; a longer run is computed in larger strides.
    """
    alike: dict[float, list[str]] = {}  # groups of one rate have one curve
    for title, lr in rates.items():
        alike.setdefault(lr, []).append(title)
    shown = dict(list(alike.items())[:MOST_CURVES])
    try:
        found = _rates(json.dumps(schedule), tuple(shown), steps, steps_per_epoch, ongoing, most)
    except CommandError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    if not found[0]:
        return
    ends = [f"step {begin:,}", f"step {begin + steps:,}"]
    if len(found) == 1:
        curves = [Curve(found[0])]
        ends = [
            f"{end}: {short(lr, 3)}"
            for end, lr in zip(ends, (found[0][0], found[0][-1]), strict=True)
        ]
    else:
        titles = (", ".join(named) for named in shown.values())
        curves = [Curve(one, title, _told(one)) for one, title in zip(found, titles, strict=True)]
    # As a picture: st.html takes SVG out.
    st.image(
        sparkline(
            curves,
            dark=st.context.theme.type == "dark",
            width=width,
            height=96,
            under=(ends[0], ends[1]),
        ),
        width="stretch",
    )
    if len(found) == 1 and _rises(found[0]):
        st.caption(f"Highest {short(max(found[0]), 3)}.")
    if len(alike) > len(shown):
        st.caption(f"Drawn for {len(shown)} of {len(alike)} different rates.")
    if schedule and schedule.get("name") == "reduce_on_plateau":
        st.caption("It waits for the validation loss, so nothing can be drawn ahead.")


def _told(rates: list[float]) -> str:
    """Where a curve begins, how high it gets, where it ends."""
    stages = [rates[0], *([max(rates)] if _rises(rates) else []), rates[-1]]
    return " → ".join(dict.fromkeys(short(lr, 3) for lr in stages))


def _rises(rates: list[float]) -> bool:
    return max(rates) > max(rates[0], rates[-1]) * 1.001


@st.cache_data(show_spinner=False, max_entries=256)
def _rates(
    schedule: str,
    rates: tuple[float, ...],
    steps: int,
    steps_per_epoch: int,
    ongoing: bool,
    most: int,
) -> list[list[float]]:
    from inspector.training.schedules import previews, resolve

    given = resolve(
        json.loads(schedule),
        rates[0],
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        ongoing=ongoing,
    )
    stride = math.ceil(steps / most)
    if stride > 1:
        given = _coarse(given, stride)
        steps_per_epoch = max(1, round(steps_per_epoch / stride)) if steps_per_epoch else 0
    return previews(given, rates, max(1, steps // stride), steps_per_epoch, ongoing=ongoing)


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
