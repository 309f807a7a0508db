"""Going on from a checkpoint: resume, fork with other settings, keep one of two runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from inspector.commands import SCHEDULES, Controls
from inspector.errors import InspectorError
from inspector.numerals import short
from inspector.store.housekeeping import TRASH, trash_run
from inspector.store.reader import Run
from inspector.ui import context, runs, starting
from inspector.ui.checks import checks_panel
from inspector.ui.commanding import send
from inspector.ui.context import escape
from inspector.ui.fields import collecting, number_field
from inspector.ui.tables import table_height
from inspector.views.checkpoints import Checkpoint, checkpoints, lineage, snapshots
from inspector.views.controls import in_force
from inspector.views.newest import newest

_NOW = "now"
_EARLIEST = "earliest"
_AS_IT_IS = "as it is"


def fork_panel(run: str) -> None:
    """The checkpoints of a run, and what can be done from each; part of the Runs page."""
    with context.opened(run) as opened:
        live = context.is_live(opened)
        found = checkpoints(opened)
        if opened.meta.get("kind") != "built_in":
            st.caption(
                "Checkpoints are kept of runs that are started here; a script of your own keeps "
                "its own with `torch.save`."
            )
            return
        _origin(opened)
        if not found and not live:
            st.caption(
                "This run has no checkpoint: it ended before its first step, or an older version "
                "wrote it."
            )
            return
        _table(found)
        if live:
            st.button(
                "Checkpoint now",
                icon=":material/save:",
                key=f"fork/now/{run}",
                on_click=send,
                args=(run, "checkpoint"),
                kwargs={"said": "Written at the end of the step."},
            )
        _form(opened, found, live=live)
        st.caption("Checks with the settings of this run, on a copy:")
        checks_panel(opened.config, f"fork/{run}")


def keep(names: Sequence[str]) -> None:
    """Keeps one of some runs and moves the others to the trash, after a question."""
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    chosen = left.selectbox("Keep one", names, key=f"keep/which/{'/'.join(names)}")
    others = [name for name in names if name != chosen]
    with right, st.popover("Keep it", icon=":material/inventory_2:", width="stretch"):
        listed = ", ".join(f"**{escape(name)}**" for name in others)
        st.markdown(f"Keep **{escape(str(chosen))}** and move {listed} to `{TRASH}`?")
        st.caption("Nothing is erased: move a folder back to see its run again.")
        if st.button("Move", type="primary", key=f"keep/do/{'/'.join(names)}"):
            _keep(str(chosen), others)


def _keep(chosen: str, others: list[str]) -> None:
    try:
        for name in others:
            trash_run(context.runs_dir(), name)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    runs.watch(chosen)


def _origin(run: Run) -> None:
    origin = lineage(run)
    if origin is None:
        return
    verb = "Forked" if origin.kind == "fork" else "Resumed"
    settings = ", ".join(f"{name} = {value}" for name, value in origin.changes.items())
    of = escape(origin.parent or "a file")
    changed = f" with {escape(settings)}" if settings else ""
    st.caption(f"{verb} from **{of}** at step {origin.step}{changed}.")


def _table(found: list[Checkpoint]) -> None:
    if not found:
        st.caption("No checkpoint yet.")
        return
    st.dataframe(
        [
            {
                "checkpoint": one.name,
                "step": one.step,
                "time": time.strftime("%H:%M:%S", time.localtime(one.wall)),
                "val_loss": one.val_loss,
                "size": one.size / 1e6,
            }
            for one in found
        ],
        hide_index=True,
        height=table_height(len(found), most=5),
        column_config={
            "checkpoint": st.column_config.TextColumn("Checkpoint"),
            "step": st.column_config.NumberColumn("Steps done", format="localized"),
            "time": st.column_config.TextColumn("Written"),
            "val_loss": st.column_config.NumberColumn("Validation loss", format="%.4g"),
            "size": st.column_config.NumberColumn("MB", format="%.2f"),
        },
    )


def _form(run: Run, found: list[Checkpoint], *, live: bool) -> None:
    key = f"fork/{run.name}"
    steps = {one.name: one.step for one in found}
    places = _in_memory(run, st.session_state.get(f"{key}/at"), steps) if live else {}
    for name, step in steps.items():
        places[name] = f"{'checkpoint' if name.isdecimal() else name} · step {step:,}"
    now = in_force(run.config, run.events())
    going = starting.going(key)
    with st.form(key, border=False, enter_to_submit=False):
        place, lr, clip, schedule, more = st.columns([1.3, 1, 1, 1, 1])
        at = place.selectbox(
            "Go on from",
            list(places),
            format_func=lambda name: places.get(name, name),
            key=f"{key}/at",
            help="A snapshot lies in the memory of the running training; it is written as a "
            "checkpoint when you go on from it."
            if live
            else None,
        )
        with collecting() as refused:
            changes = _settings(run, now, key, lr, clip, schedule)
            extent = number_field(
                "Further steps",
                0,
                least=0,
                place=more,
                key=f"{key}/more",
                help="0 trains to where the run itself ends; from its end, as many steps again.",
            )
        with st.container(horizontal=True):
            forked = st.form_submit_button(
                "Fork", type="primary", icon=":material/fork_right:", key=f"{key}/fork",
                disabled=going,
                help="A second run on the same batches and random numbers, with the settings "
                "above; the first stays as it is.",
            )  # fmt: skip
            resumed = st.form_submit_button(
                "Resume", icon=":material/resume:", key=f"{key}/resume",
                disabled=going,
                help="A run that goes on exactly as this one would have, whatever is set above.",
            )  # fmt: skip
    if going:
        _follow(run.name, key)
    elif made := starting.just_made(key):
        _compare(run.name, made)
    elif said := st.session_state.pop(f"{key}/refused", ""):
        st.error(escape(said), icon=":material/block:")
    if going or not (forked or resumed) or at is None or refused:
        return
    beat = run.heartbeat
    reached = beat.step if at == _NOW and beat else steps.get(at, int(at) if at.isdecimal() else 0)
    if not extent and beat and beat.total_steps is not None and reached >= beat.total_steps:
        extent = reached
    length = {"steps": int(reached + extent)} if extent else {}
    _begin(run.name, at, {**(changes if forked else {}), **length}, key)
    st.rerun()  # draws the buttons as they are meanwhile


def _in_memory(run: Run, chosen: str | None, steps: Mapping[str, int]) -> dict[str, str]:
    """What a live run can write a checkpoint of, and how it is called."""
    held = {str(step): f"snapshot · step {step:,}" for step in reversed(snapshots(run))}
    places = {_NOW: "the present step"}
    if held and run.status == "running":  # which replaces them while somebody chooses
        places[_EARLIEST] = "the earliest snapshot"
    if chosen and chosen.isdecimal():  # is not taken from under somebody who has chosen it
        places[chosen] = f"snapshot · step {int(chosen):,}"
    return places | {name: said for name, said in held.items() if name not in steps}


def _settings(
    run: Run, now: Controls, key: str, lr: Any, clip: Any, schedule: Any
) -> dict[str, Any]:
    """The settings that were changed in the form."""
    measured = newest(run, "lr")
    rate = short(measured[1]) if measured else _AS_IT_IS
    changes: dict[str, Any] = {}
    wanted = number_field(
        "Learning rate", None, least=0.0, place=lr, format="%g", placeholder=rate, key=f"{key}/lr"
    )
    if wanted is not None:
        changes["lr"] = wanted
    clipping = clip.selectbox(
        "Clipping", [_AS_IT_IS, "off", "norm", "value"], key=f"{key}/clip",
        help=f"Now {now.clip}, threshold {short(now.clip_threshold, 6)}.",
    )  # fmt: skip
    if clipping != _AS_IT_IS:
        changes["clip"] = clipping
    name = schedule.selectbox(
        "Schedule", [_AS_IT_IS, *SCHEDULES],
        format_func=lambda name: name.replace("_", " "),
        key=f"{key}/schedule",
    )  # fmt: skip
    if name != _AS_IT_IS:
        changes["schedule"] = {"name": name}
    return changes


def _begin(run: str, at: str, changes: dict[str, Any], key: str) -> None:
    from inspector.training.forking import fork  # imports torch: only when something is trained

    folder = context.runs_dir()
    starting.begin(key, (at, changes), lambda told: fork(run, at, folder, changes, progress=told))


def _follow(run: str, key: str) -> None:
    """Goes to the comparison with the new run as soon as that is there."""
    try:
        name = starting.follow(key, "Taking up the checkpoint …")
    except InspectorError as error:
        st.session_state[f"{key}/refused"] = str(error)
        st.rerun()
    _compare(run, name)


def _compare(run: str, name: str) -> None:
    pages = st.session_state["pages"]
    if "compare" not in pages:
        runs.watch(name)
    st.session_state.pop("compare/runs", None)
    context.select(name)
    st.switch_page(pages["compare"], query_params={"runs": [run, name]})
