"""How the learning rate goes on: a schedule, its arguments, and the curve that comes of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sized
from typing import Any

import streamlit as st

from inspector import catalog
from inspector.config import RunConfig
from inspector.errors import CommandError, InspectorError
from inspector.schedules import ARGUMENTS, SCHEDULES, check_schedule
from inspector.ui.context import escape
from inspector.ui.own.check import checked_batches
from inspector.ui.practices.modules import modules_of
from inspector.ui.practices.preview import draw
from inspector.views.practices import SCHEDULES as WORDS

_COLUMNS = 3
_GUESS = 100  # steps an epoch, where the data has not been read
_ABOUT = {
    "constant": "The learning rate stays as it is.",
    "step": "Multiplied by a factor at regular intervals.",
    "multi_step": "Multiplied by a factor at each milestone.",
    "exponential": "Multiplied by a factor after every epoch (or step).",
    "cosine": "Falls along half a cosine from the learning rate to the lowest rate.",
    "one_cycle": "Rises to its peak and falls far below the start: fast training in one cycle.",
    "warmup_cosine": "Rises evenly while the first steps are uncertain, then falls as a cosine.",
    "reduce_on_plateau": "Multiplied by a factor when the validation loss has stopped falling.",
}
_CLASSES = {
    "step": "StepLR",
    "multi_step": "MultiStepLR",
    "exponential": "ExponentialLR",
    "cosine": "CosineAnnealingLR",
    "one_cycle": "OneCycleLR",
    "warmup_cosine": "LinearLR, then CosineAnnealingLR",
    "reduce_on_plateau": "ReduceLROnPlateau",
}
LABELS = {
    "step_size": "Interval",
    "gamma": "Factor",
    "unit": "Counted in",
    "milestones": "Milestones",
    "T_max": "Length of the fall",
    "eta_min": "Lowest rate",
    "max_lr": "Peak rate",
    "total_steps": "Whole length",
    "pct_start": "Share that rises",
    "anneal_strategy": "Shape",
    "div_factor": "Peak ÷ start",
    "final_div_factor": "Start ÷ end",
    "three_phase": "Three phases",
    "warmup_steps": "Length of the rise",
    "start_factor": "Start ÷ peak",
    "factor": "Factor",
    "patience": "Patience",
    "threshold": "Least improvement",
    "cooldown": "Rest",
    "min_lr": "Lowest rate",
}
"""Arguments of schedules, as the fields are called."""
_OURS = ("unit", "warmup_steps")  # in the configuration only; PyTorch calls it otherwise
_SHOWN = {"cos": "cosine", "epoch": "epochs", "step": "steps"}
HELP = {
    "step_size": "Epochs or steps between two reductions; empty: a third of the run.",
    "gamma": "What the learning rate is multiplied by.",
    "unit": "Whether the numbers here count epochs or optimizer steps.",
    "milestones": "Rising numbers in brackets, such as [30, 60]; empty: half and three quarters.",
    "T_max": "Length of the fall; empty: to the end of the run.",
    "eta_min": "Where the fall ends.",
    "max_lr": "The peak; empty: the learning rate set above.",
    "total_steps": "Length of the whole schedule; empty: to the end of the run.",
    "pct_start": "Share of the schedule that rises.",
    "anneal_strategy": "Shape of rise and fall: cos or linear.",
    "div_factor": "The start is the peak divided by this; empty: 25.",
    "final_div_factor": "The end is the start divided by this.",
    "three_phase": "Fall back to the start first, then to the end.",
    "warmup_steps": "Length of the rise; empty: a tenth of the schedule.",
    "start_factor": "The start as a share of the peak; empty: 0.01.",
    "factor": "What the learning rate is multiplied by.",
    "patience": "Epochs without improvement that are waited for.",
    "threshold": "Share by which the loss must fall to count as better.",
    "cooldown": "Epochs of rest after a reduction.",
    "min_lr": "The learning rate never falls below this.",
}
"""The same in words of a beginner."""


def schedule_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """The control ``schedule``; None while a value cannot be used."""
    given = config.controls.schedule or {"name": "constant"}
    form, picture = st.columns([3, 2], gap="large")
    with form:
        name = st.selectbox(
            "Schedule",
            SCHEDULES,
            index=SCHEDULES.index(given["name"]),
            format_func=lambda choice: WORDS[choice].capitalize(),
            key=f"{key}/name",
        )
        st.caption(f"{_ABOUT[name]} PyTorch: {_CLASSES.get(name, 'no scheduler')}.")
        chosen = argument_fields(name, given if name == given["name"] else {}, f"{key}/{name}")
    if chosen is None:
        return None
    schedule = None if chosen == {"name": "constant"} else chosen
    if schedule != config.controls.schedule:
        # Kept first, drawn at the rerun that follows: what was chosen outlives an impatient click.
        return {"controls": dataclasses.replace(config.controls, schedule=schedule)}
    with picture:
        per_epoch = _steps_per_epoch(config)
        steps = config.steps or config.epochs * (per_epoch or _GUESS)
        draw(chosen, _groups(config), steps, per_epoch or _GUESS, width=360)
        if not per_epoch:
            st.caption(
                f"Drawn for {_GUESS} steps an epoch: the data has not been read yet; "
                "**Check and preview** reads it."
            )
    return {}


def argument_fields(
    name: str, given: dict[str, Any], key: str, *, columns: int = _COLUMNS
) -> dict[str, Any] | None:
    """The schedule as filled in, with what differs from the defaults; None while it is unusable."""
    made: dict[str, Any] = {"name": name}
    arguments = list(ARGUMENTS[name].items())
    if name == "reduce_on_plateau":
        arguments = [pair for pair in arguments if pair[0] != "unit"]
    try:
        for first in range(0, len(arguments), columns):
            row = arguments[first : first + columns]
            for column, (argument, default) in zip(
                st.columns(columns, gap="small", vertical_alignment="bottom"), row, strict=False
            ):
                with column:
                    value = _field(argument, default, given.get(argument, default), key)
                if value != default:
                    made[argument] = value
        return check_schedule(made)
    except CommandError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return None


def _field(name: str, default: Any, value: Any, key: str) -> Any:
    key, label = f"{key}/{name}", LABELS[name]
    text = f"{HELP[name]} {'Setting' if name in _OURS else 'PyTorch'}: `{name}`."
    if name in ("unit", "anneal_strategy"):
        choices = ["epoch", "step"] if name == "unit" else ["cos", "linear"]
        return st.selectbox(
            label,
            choices,
            index=choices.index(value),
            format_func=lambda choice: _SHOWN.get(choice, choice),
            key=key,
            help=text,
        )
    if isinstance(default, bool):
        return st.toggle(label, value, key=key, help=text)
    if name == "milestones":
        typed = st.text_input(
            label, json.dumps(value) if value else "", placeholder="[30, 60]", key=key, help=text
        )
        try:
            return json.loads(typed) if typed.strip() else None
        except ValueError:
            raise CommandError(
                f"milestones must be numbers in brackets, such as [30, 60], but got {typed[:40]!r}."
            ) from None
    whole = name in _WHOLE
    return st.number_input(
        label,
        value=None if value is None else int(value) if whole else float(value),
        step=1 if whole else None,
        format=None if whole else "%.6g",
        placeholder="auto",
        key=key,
        help=text,
    )


_WHOLE = frozenset({"step_size", "T_max", "total_steps", "warmup_steps", "patience", "cooldown"})


def _groups(config: RunConfig) -> dict[str, float]:
    """The learning rate that each parameter group begins with, by its modules."""
    rates: dict[tuple[str, ...], float] = {}
    for group in config.param_groups:
        paths = group.get("modules", ()) if isinstance(group, dict) else ()
        if not paths:
            continue  # refused at the start
        rates[(paths,) if isinstance(paths, str) else tuple(paths)] = group.get("lr", config.lr)
    named = {", ".join(paths): lr for paths, lr in rates.items()}
    if not named:
        return {"": config.lr}
    trained = [module.path for module in modules_of(config) if module.trained]
    inside = tuple(path for paths in rates for path in paths)
    covered = trained and all(_within(path, inside) for path in trained)
    return named if covered else {"all others": config.lr, **named}


def _within(path: str, modules: tuple[str, ...]) -> bool:
    return any(f"{path}.".startswith(f"{module}.") for module in modules)


def _steps_per_epoch(config: RunConfig) -> int:
    """0 where the data is not at hand and has not been checked."""
    batches = config.overfit_batches or checked_batches(config) or _batches(config)
    return math.ceil(batches / config.controls.accumulate)


def _batches(config: RunConfig) -> int:
    """Of an epoch of what is bundled; 0 of anything else."""
    source = catalog.DATA.get(config.data)
    if source is None or source.download_bytes:
        return 0
    from inspector.training import runner

    if runner.current() is not None:
        return 0  # reading might draw random numbers that the run in this process needs
    count = _samples(config.data, json.dumps(config.data_args, default=str))
    trained = count - round(config.validation * count) - round(config.test * count)
    return math.ceil(trained / config.batch_size)


@st.cache_data(show_spinner=False, max_entries=64)
def _samples(data: str, data_args: str) -> int:
    from inspector.training.own.sources import load_data

    try:
        source = load_data(RunConfig(data=data, data_args=json.loads(data_args)), None, "auto")
    except (InspectorError, TypeError, ValueError):
        return 0
    return len(source) if isinstance(source, Sized) else 0
