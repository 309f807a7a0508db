"""The training loop: plain PyTorch, steered and recorded by ``watch`` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.events import CheckpointSaved, EpochFinished
from inspector.training.anomaly import Backward
from inspector.training.task import Task

if TYPE_CHECKING:
    from inspector.watching import Watch


def train(task: Task, watch: Watch) -> None:
    """Trains until ``task.total_steps`` are done or ``watch.should_stop``; then saves the model.

    Raises:
        Exception: whatever the model, the data or the loss raises.
    """
    model, optimizer, step = task.model, task.optimizer, 0
    backward = Backward(optimizer, watch)
    model.train()
    for epoch in range(task.epochs):
        for inputs, targets in task.train_loader:
            inputs, targets = inputs.to(task.device), targets.to(task.device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = task.loss_fn(outputs, targets)
            watch.record(loss=loss, **scores(task, outputs, targets))
            watch.record(epoch=(step + 1) / len(task.train_loader), samples=len(inputs))
            backward(loss)
            optimizer.step()
            step += 1
            if watch.should_stop or step >= task.total_steps:
                break
        if watch.should_stop:
            break
        means = validate(task, watch)
        if step == (epoch + 1) * len(task.train_loader):
            watch.event(EpochFinished(epoch=epoch, **means))
    save(task, watch)


def validate(task: Task, watch: Watch) -> dict[str, float]:
    """Records and returns the mean loss (and accuracy) over the validation part, in eval mode."""
    totals: dict[str, Tensor] = {}
    task.model.eval()
    with torch.no_grad():
        for inputs, targets in task.val_loader:
            inputs, targets = inputs.to(task.device), targets.to(task.device)
            outputs = task.model(inputs)
            values = {"loss": task.loss_fn(outputs, targets), **scores(task, outputs, targets)}
            for name, value in values.items():
                totals[name] = totals.get(name, value.new_zeros(())) + len(inputs) * value
    task.model.train()
    means = {f"val_{name}": total.item() / len(task.val_set) for name, total in totals.items()}
    if means:
        watch.validation(**means)
    return means


def scores(task: Task, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What is measured beside the loss: the accuracy of a classification."""
    if task.kind != "classification":
        return {}
    return {"accuracy": (outputs.detach().argmax(dim=1) == targets).float().mean()}


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
