"""What is rarely changed: weights to start with, the task, the split, sampling and loading."""

from __future__ import annotations

from typing import Any, cast

import streamlit as st

from inspector import catalog
from inspector.config import TASKS, RunConfig
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


def _pretrained(model: str) -> dict[str, str]:
    """Names of the weights that torchvision has for a model of its own."""
    if not model.startswith("torchvision:"):
        return {}
    from inspector.training.pretrained import offered

    return {one.name: one.about for one in offered(model)}


def _metrics(config: RunConfig, task: str, key: str) -> list[str]:
    """Those of the task; of every task while it is not known."""
    source = catalog.DATA.get(config.data)
    kind = source.kind if source and task == "auto" else task
    known = catalog.METRICS.get(cast(catalog.Kind, kind))
    names = known or sorted({name for names in catalog.METRICS.values() for name in names})
    given = [str(name) for name in config.metrics]
    return st.multiselect(
        "Metrics of held-out samples",
        list(dict.fromkeys([*(name for name in names if name != "accuracy"), *given])),
        default=given,
        accept_new_options=True,
        placeholder="the usual ones",
        key=f"{key}/metrics",
        help="Computed by torchmetrics over the whole part. top3_accuracy and so on can be typed.",
    )


def settings_fields(config: RunConfig, version: int) -> dict[str, Any]:
    """What the form changes of a configuration."""
    key = f"own-settings/{version}"
    first, second, third = st.columns(3, gap="medium")
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
            "Same share of each class in every part", config.stratify, key=f"{key}/stratify"
        )
        normalize = st.toggle(
            "Normalise by the training part",
            config.normalize,
            key=f"{key}/normalize",
            help="Mean 0 and standard deviation 1 for each channel or column.",
        )
        balance = st.toggle("Draw each class equally often", config.balance, key=f"{key}/balance")
    with third:
        workers = st.number_input(
            "Loading processes",
            0,
            64,
            config.workers,
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
