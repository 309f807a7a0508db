"""What is rarely changed: weights to start with, the task, the split, sampling and loading."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import streamlit as st

from inspector import catalog
from inspector.config import TASKS, RunConfig
from inspector.errors import ConfigError
from inspector.ui.fields import number_field, refuse
from inspector.ui.own.check import checked
from inspector.ui.own.places import path_field

_TASK_NAMES = {
    "auto": "as the data suggests",
    "multi_label": "multi-label",
    "per_pixel": "per pixel",
    "sequence": "sequence (next item)",
    "distribution": "distribution over classes",
    "transcription": "transcription (CTC)",
    "own": "my training_step",
}
_KINDS = {"torchvision": "classification", "folder": "classification", "text": "sequence"}
"""Tasks of data that can be for one only, by the beginning of its name."""


def _pretrained(model: str) -> dict[str, str]:
    """Names of the weights that torchvision has for a model of its own."""
    if not model.startswith("torchvision:"):
        return {}
    from inspector.training.pretrained import offered

    return {one.name: one.about for one in offered(model)}


def _kind(config: RunConfig, task: str) -> str:
    """The task that the data is for; empty while only a check of the data could tell."""
    if task != "auto":
        return "" if task == "own" else task
    source = catalog.DATA.get(config.data)
    if source:
        return source.kind
    seen = checked(dataclasses.replace(config, task=task))
    if seen is not None:
        return "" if seen.kind == "own" else seen.kind
    return _KINDS.get(config.data.partition(":")[0], "")


def _metrics(config: RunConfig, task: str, key: str) -> list[str]:
    """Those of the task; while it is not known, those of every task with the tasks they are for."""
    kind = cast(catalog.Kind, _kind(config, task))
    names = catalog.METRICS[kind] if kind else sorted(set().union(*catalog.METRICS.values()))
    given = [str(name) for name in config.metrics]
    options = dict.fromkeys([*(name for name in names if name != "accuracy"), *given])
    chosen = st.multiselect(
        "Metrics of held-out samples",
        list(options),
        default=given,
        format_func=str if kind else _with_tasks,
        accept_new_options=True,
        placeholder="the usual ones",
        key=f"{key}/metrics",
        help="Computed by torchmetrics over the whole part. top3_accuracy and so on can be typed.",
    )
    if not kind and task == "own":
        st.caption("Computed if your training\\_step returns predictions and targets.")
    elif not kind:
        st.caption(
            "**Check and preview** finds out the task of this data; a metric that does not fit it "
            "is refused before the start."
        )
    else:
        try:
            catalog.metrics(chosen, kind)
        except ConfigError as error:
            refuse(str(error))
            return given
    return chosen


def _with_tasks(name: str) -> str:
    """``mae · regression, reconstruction``; a name that was typed stays as it is."""
    tasks = [kind for kind, names in catalog.METRICS.items() if name in names]
    words = ", ".join(kind.replace("_", " ") for kind in tasks)
    return f"{name} · {words}" if words else name


def settings_fields(config: RunConfig, version: int) -> dict[str, Any]:
    """What the form changes of a configuration."""
    key = f"own-settings/{version}"
    first, second, third = st.columns([1, 1, 1.2], gap="medium")
    with first:
        weights = path_field(
            "Start from weights",
            config.weights,
            (".pt", ".pth", ".safetensors"),
            f"{key}/weights/{config.model}",
            more=_pretrained(config.model),
        )
        by_name = weights.startswith("torchvision:")
        partial = (
            weights != ""
            and not by_name
            and st.toggle("Take what fits of them", config.weights_partial, key=f"{key}/partial")
        )
        task = st.selectbox(
            "Task",
            TASKS,
            index=TASKS.index(config.task),
            format_func=lambda name: _TASK_NAMES.get(name, name),
            key=f"{key}/task",
        )
    with second:
        test = st.slider(
            "Kept for a test at the end", 0.0, 0.5, min(config.test, 0.5), 0.05, key=f"{key}/test"
        )
        stratify = st.toggle(
            "Stratify by class",
            config.stratify,
            key=f"{key}/stratify",
            help="Every part of the split gets the same share of each class.",
        )
        normalize = st.toggle(
            "Normalise by the training part",
            config.normalize,
            key=f"{key}/normalize",
            help="Mean 0 and standard deviation 1 for each channel or column.",
        )
        balance = st.toggle("Draw each class equally often", config.balance, key=f"{key}/balance")
    with third:
        workers = number_field(
            "Loading processes",
            config.workers,
            least=0,
            most=64,
            key=f"{key}/workers",
            help="With one or more, training runs in a process of its own.",
        )
        pinned = st.toggle(
            "Pinned memory",
            config.pin_memory,
            key=f"{key}/pinned",
            help="Faster copies to a CUDA device.",
        )
        metrics = _metrics(config, task, key)
    return {
        "weights": weights,
        "metrics": metrics,
        "weights_partial": bool(partial),
        "task": task,
        "test": test,
        "stratify": stratify,
        "normalize": normalize,
        "balance": balance,
        "workers": workers,
        "pin_memory": pinned,
    }
