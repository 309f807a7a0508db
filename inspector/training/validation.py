"""Held-out parts: the mean loss, and metrics over the whole part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.catalog import Kind
from inspector.training.own.batches import size_of, to_device
from inspector.training.task import Task

if TYPE_CHECKING:
    from inspector.training.metrics import Metrics
    from inspector.watching import Watch


def mean_scores(
    task: Task, batches: Iterable[Any], part: str, watch: Watch | None = None
) -> dict[str, float]:
    """Mean loss and metrics of a held-out part, in eval mode; empty where there are no batches.

    Of a step of the user's own: the means of the numbers that it returns, and metrics of the
    predictions and targets.

    Args:
        watch: gets the confusion matrix as a document, if it was asked for.
    """
    if _is_empty(batches):  # even to ask it for batches would draw a random number
        return {}
    totals: dict[str, Tensor] = {}
    count = 0
    metrics: Metrics | None = None
    task.model.eval()
    with torch.no_grad(), task.precision.autocast():
        for batch in batches:
            batch = to_device(batch, task.device)
            judged = task.validation_step.judge(task.model, batch)
            if judged.outputs is not None:
                metrics = metrics or _metrics(task, judged.kind)
                metrics.update(judged.outputs, judged.targets)
            samples = size_of(batch)
            count += samples
            for name, value in {"loss": judged.loss, **judged.numbers}.items():
                totals[name] = totals.get(name, value.new_zeros(())) + samples * value
    task.model.train()
    means = {name: total.item() / count for name, total in totals.items()}
    if metrics is not None:
        numbers, confusion = metrics.compute()
        means = numbers | means
        if confusion and watch is not None:
            names = list(task.source.class_names[: len(confusion)])
            watch.document(
                "confusion_matrix", {"part": part, "classes": names, "counts": confusion}
            )
    return {f"{part}_{name}": value for name, value in means.items()}


def _is_empty(batches: Iterable[Any]) -> bool:
    try:
        return len(batches) == 0  # type: ignore[arg-type]
    except TypeError:
        return False


def _metrics(task: Task, kind: Kind) -> Metrics:
    from inspector.training.metrics import Metrics

    return Metrics(task.config.metrics, kind, task.device)


def of_epoch(means: dict[str, float]) -> dict[str, float]:
    """The means that the event of an epoch carries."""
    return {name: means[name] for name in ("val_loss", "val_accuracy") if name in means}
