"""Practices that can be switched while a run goes on; folded into the steering panel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from inspector.schedules import SCHEDULES
from inspector.ui.folded import folded
from inspector.ui.practices.modules import Module, recorded_modules
from inspector.ui.practices.preview import draw
from inspector.ui.practices.regularise import eval_options
from inspector.ui.practices.schedule import argument_fields
from inspector.views.newest import newest
from inspector.views.optimizers import places, value
from inspector.views.practices import SCHEDULES as WORDS

if TYPE_CHECKING:
    from inspector.ui.panel import Panel

_POINTS = 400
_STRIDES = 40  # the picture of what is ahead changes so often over a run, not at every refresh
OWN_LOOP = "Your own script decides this in its loop, so it cannot be changed from here."


def midrun(panel: Panel) -> None:
    """The folded parts; each is drawn only while it is open."""
    for title, icon, part in (
        ("Schedule", ":material/trending_down:", _schedule),
        ("Freeze, eval mode", ":material/ac_unit:", _modules),
    ):
        folded(title, partial(part, panel), icon=icon, key=panel.key(title))


def _schedule(panel: Panel) -> None:
    now = panel.controls.schedule or {"name": "constant"}
    if panel.watched:
        st.caption(OWN_LOOP)
    else:
        st.caption(f"In force: {WORDS.get(now['name'], now['name'])}.")
    disabled = panel.disabled or panel.watched
    name = st.selectbox(
        "Go on with",
        SCHEDULES,
        index=SCHEDULES.index(now["name"]) if now["name"] in SCHEDULES else 0,
        format_func=lambda choice: WORDS[choice].capitalize(),
        key=panel.key(f"schedule/{now['name']}"),
        disabled=disabled,
        help="It starts at the learning rate in force, so nothing jumps.",
    )
    if disabled:
        return
    given = now if name == now["name"] else {}
    chosen = argument_fields(name, given, panel.key(f"schedule/{name}"), columns=2)
    if chosen is None:
        return
    _ahead(panel, chosen)
    waits = panel.waits("schedule")
    st.button(
        "Waiting for the step …" if waits else "Switch",
        icon=":material/check:",
        key=panel.key("schedule/switch"),
        disabled=waits,
        on_click=panel.put,
        args=("schedule", "schedule", chosen),
    )


def _ahead(panel: Panel, schedule: dict[str, Any]) -> None:
    """The learning rates from the present step to the end of the run."""
    beat = panel.run.heartbeat
    if beat is None or not beat.total_steps:
        return
    stride = max(1, beat.total_steps // _STRIDES)
    begin = beat.step // stride * stride
    steps = max(1, beat.total_steps - begin)
    draw(
        schedule, _in_force(panel), steps, _steps_per_epoch(panel, beat.step), ongoing=True,
        begin=begin, most=_POINTS,
    )  # fmt: skip


def _in_force(panel: Panel) -> dict[str, float]:
    """The learning rate of each parameter group, by its title."""
    groups = [place for place in places(panel.run) if "/" in place.target]
    if groups:
        found = {place.title: value(panel.run, place, "lr") or 0.0 for place in groups}
    else:
        rate = newest(panel.run, "lr")
        found = {"": rate[1] if rate else 0.0}
    return {title: float(f"{lr:.3g}") for title, lr in found.items()}


def _steps_per_epoch(panel: Panel, step: int) -> int:
    epoch = newest(panel.run, "epoch")
    if epoch is None or epoch[1] <= 0:
        return 0
    return max(1, round((epoch[0] + 1) / epoch[1])) if step else 0


def _modules(panel: Panel) -> None:
    modules = recorded_modules(panel.run)
    _choice(
        panel, "frozen", "Frozen modules", _holding(modules),
        "Their weights stay as they are from the next step on; take one out to free it again.",
    )  # fmt: skip
    _choice(
        panel, "eval_modules", "Held in eval mode", eval_options(modules),
        "Dropout lets everything through; batch normalisation uses what it has learnt.",
    )  # fmt: skip


def _choice(panel: Panel, control: str, label: str, options: list[str], text: str) -> None:
    current = list(getattr(panel.controls, control))
    key = panel.prepare(control, current)
    chosen = st.session_state.get(key, current)
    st.multiselect(
        label,
        list(dict.fromkeys([*options, *current, *chosen])),
        key=key,
        placeholder="none",
        on_change=panel.changed,
        args=(control, control),
        disabled=panel.disabled,
        help=text,
    )


def _holding(modules: list[Module]) -> list[str]:
    return [module.path for module in modules if module.holds]
