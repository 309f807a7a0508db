"""The training loop: plain PyTorch, steered and recorded by ``watch`` alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.errors import DataError
from inspector.events import CheckpointSaved, EpochFinished
from inspector.training.anomaly import Backward
from inspector.training.own.batches import size_of, to_device
from inspector.training.task import Task

if TYPE_CHECKING:
    from inspector.watching import Watch


def train(task: Task, watch: Watch) -> None:
    """Trains until ``task.total_steps`` are done or ``watch.should_stop``; then saves the model.

    Raises:
        DataError: the loader gives no batch.
        Exception: whatever the model, the data or the loss raises.
    """
    model, optimizer, step = task.model, task.optimizer, 0
    backward = Backward(optimizer, watch)
    model.train()
    for epoch in range(task.epochs):
        begun = step
        for batch, waited in timed(task.train_loader):
            batch = to_device(batch, task.device)
            optimizer.zero_grad()
            loss, measured = task.step(model, batch)
            watch.record(loss=loss, data_seconds=waited, **measured)
            watch.record(epoch=progress(task, step, epoch), samples=size_of(batch))
            backward(loss)
            optimizer.step()
            step += 1
            if watch.should_stop or step >= task.total_steps:
                break
        if watch.should_stop or step == begun:
            break
        means = validate(task, watch, last=step >= task.total_steps or epoch + 1 == task.epochs)
        if step - begun == task.steps_per_epoch or step < task.total_steps:
            watch.event(EpochFinished(epoch=epoch, **of_epoch(means)))
        if step >= task.total_steps:
            break
    if step == begun and not watch.should_stop:
        raise DataError(
            f"The loader gave no batch in epoch {epoch}; was it a generator that is used up?"
        )
    save(task, watch)


def timed(batches: Iterable[Any]) -> Iterator[tuple[Any, float]]:
    """Batches, each with the seconds that were waited for it."""
    rest = iter(batches)
    while True:
        asked = time.perf_counter()
        try:
            batch = next(rest)
        except StopIteration:
            return
        yield batch, time.perf_counter() - asked


def progress(task: Task, step: int, epoch: int) -> float:
    """Passes over the training part completed after this step, as far as they are known."""
    return (step + 1) / task.steps_per_epoch if task.steps_per_epoch else float(epoch)


def validate(task: Task, watch: Watch, *, last: bool) -> dict[str, float]:
    """Records and returns means over validation; after the last step, over the test part too."""
    means = mean_scores(task, task.val_loader, "val")
    if last:
        means |= mean_scores(task, task.test_loader, "test")
    if means:
        watch.validation(**means)
    return means


def mean_scores(task: Task, batches: Iterable[Any], part: str) -> dict[str, float]:
    """Mean loss and scores over a held-out part, in eval mode; empty where there are no batches."""
    totals: dict[str, Tensor] = {}
    count = 0
    task.model.eval()
    with torch.no_grad():
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


def save(task: Task, watch: Watch) -> None:
    """Writes model and optimizer to ``blobs/last.pt`` of the run."""
    path = watch.run_path / "blobs" / "last.pt"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".part")
    state = {
        "model": task.model.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "config": task.config.to_dict(),
        "step": watch.step,
    }
    torch.save(state, partial)
    partial.replace(path)
    watch.event(CheckpointSaved(path="blobs/last.pt"))
