"""Held-out parts: means of loss and scores over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from inspector.training.own.batches import size_of, to_device
from inspector.training.task import Task


def mean_scores(task: Task, batches: Iterable[Any], part: str) -> dict[str, float]:
    """Mean loss and scores over a held-out part, in eval mode; empty where there are no batches."""
    totals: dict[str, Tensor] = {}
    count = 0
    task.model.eval()
    with torch.no_grad(), task.precision.autocast():
        for batch in batches:
            batch = to_device(batch, task.device)
            loss, measured = task.validation_step(task.model, batch)
            samples = size_of(batch)
            count += samples
            for name, value in {"loss": loss, **measured}.items():
                totals[name] = totals.get(name, value.new_zeros(())) + samples * value
    task.model.train()
    return {f"{part}_{name}": total.item() / count for name, total in totals.items()}


def of_epoch(means: dict[str, float]) -> dict[str, float]:
    """The means that the event of an epoch carries."""
    return {name: means[name] for name in ("val_loss", "val_accuracy") if name in means}
