"""Held-out parts: the mean loss, and metrics over the whole part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.training.own.batches import size_of, to_device
from inspector.training.step import Scores, Supervised
from inspector.training.task import Task

if TYPE_CHECKING:
    from inspector.training.metrics import Metrics
    from inspector.watching import Watch


def mean_scores(
    task: Task, batches: Iterable[Any], part: str, watch: Watch | None = None
) -> dict[str, float]:
    """Mean loss and metrics of a held-out part, in eval mode; empty where there are no batches.

    Of a step of the user's own: the means of what it returns.

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
            if isinstance(task.validation_step, Supervised) and metrics is None:
                metrics = _metrics(task)
            loss, measured = _judge(task, batch, metrics)
            samples = size_of(batch)
            count += samples
            for name, value in {"loss": loss, **measured}.items():
                totals[name] = totals.get(name, value.new_zeros(())) + samples * value
    task.model.train()
    means = {name: total.item() / count for name, total in totals.items()}
    if metrics is not None:
        numbers, confusion = metrics.compute()
        means |= numbers
        if confusion and watch is not None:
            names = list(task.source.class_names[: len(confusion)])
            watch.document(
                "confusion_matrix", {"part": part, "classes": names, "counts": confusion}
            )
    return {f"{part}_{name}": value for name, value in means.items()}


def _judge(task: Task, batch: Any, metrics: Metrics | None) -> tuple[Tensor, Scores]:
    """The loss, and what is to be averaged; what torchmetrics measures goes into ``metrics``."""
    if metrics is None:
        return task.validation_step(task.model, batch)
    inputs, targets = batch
    outputs = task.model(inputs)
    metrics.update(outputs, targets)
    assert task.loss_fn is not None
    return task.loss_fn(outputs, targets), {}


def _is_empty(batches: Iterable[Any]) -> bool:
    try:
        return len(batches) == 0  # type: ignore[arg-type]
    except TypeError:
        return False


def _metrics(task: Task) -> Metrics:
    from inspector.training.metrics import Metrics

    return Metrics(task.config.metrics, task.kind, task.device)


def of_epoch(means: dict[str, float]) -> dict[str, float]:
    """The means that the event of an epoch carries."""
    return {name: means[name] for name in ("val_loss", "val_accuracy") if name in means}
