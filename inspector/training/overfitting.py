"""A few batches, again and again: what can be learned can be learned by heart.

The check is Karpathy's "overfit one batch" (A Recipe for Training Neural Networks, 2019).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inspector.config import RunConfig
from inspector.numerals import short
from inspector.training.own.batches import size_of, to_device
from inspector.training.task import Task, build_task

_FALLEN = 0.01
"""Share of its first value that a loss without accuracy must fall to."""
_MOVED = 0.01
"""A loss that has changed by a smaller share has not learned anything."""
_FALLING = 0.15
"""A loss whose last quarter of steps has this share of the whole fall is still on its way."""
_EVAL_EVERY = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model learned one batch by heart.

    Attributes:
        steps: until it did, or in all.
        samples: in the batch.
        losses: one for each step.
        meaning: what follows from it, in a sentence; what to try where it did not.
    """

    learned: bool
    steps: int
    samples: int
    losses: list[float]
    meaning: str

    @property
    def text(self) -> str:
        """The answer in one sentence."""
        first, last = self.losses[0], self.losses[-1]
        if self.learned:
            return (
                f"Learns {self.samples} samples by heart in {self.steps} steps "
                f"(loss {short(first, 3)} → {short(last, 3)})."
            )
        stays = "becomes" if not math.isfinite(last) else "stays at"
        return f"Does not learn {self.samples} samples by heart: the loss {stays} {short(last, 3)}."


def overfit(
    config: RunConfig,
    steps: int = 1000,
    told: Callable[[int, float], None] | None = None,
    *,
    seconds: float = 60.0,
) -> Verdict:
    """Trains a model of its own on one batch, with the optimizer and loss of ``config``.

    Learned is a batch whose samples are all right (where there is an accuracy), else one whose
    loss is 1 % of the first. Schedules, early stopping and augmentation are left out.

    Args:
        steps, seconds: at most.
        told: step and loss, for a bar.

    Raises:
        InspectorError: the configuration cannot work.
    """
    plain = dataclasses.replace(config.controls, schedule=None, accumulate=1)
    task = build_task(
        dataclasses.replace(
            config, overfit_batches=1, steps=steps, early_stopping=0, augment=[], resume="",
            controls=plain, workers=0, compile=False,
        )
    )  # fmt: skip
    batch = to_device(next(iter(task.train_loader)), task.device)
    losses: list[float] = []
    learned, end = False, time.monotonic() + seconds
    task.model.train()
    for step in range(steps):
        loss, accuracy = _step(task, batch)
        losses.append(loss)
        if told is not None:
            told(step + 1, loss)
        if not math.isfinite(loss):
            break
        if step % _EVAL_EVERY == 0 and accuracy is not None and accuracy < 1:
            accuracy = _without_dropout(task, batch)
        learned = accuracy == 1 if accuracy is not None else loss <= _FALLEN * losses[0]
        if learned or time.monotonic() > end:
            break
    return Verdict(
        learned, len(losses), size_of(batch), losses, _meaning(learned, losses, config.lr)
    )


def _step(task: Task, batch: Any) -> tuple[float, float | None]:
    """Loss and accuracy of the batch before the step that is made with it."""
    task.optimizer.zero_grad()

    def gradients() -> Tensor:
        with task.precision.autocast():
            loss, measured = task.step(task.model, batch)
        task.precision.scaled(loss).backward()  # type: ignore[no-untyped-call]
        found.append((loss.item(), measured.get("accuracy")))
        return loss

    found: list[tuple[float, Tensor | None]] = []
    if isinstance(task.optimizer, torch.optim.LBFGS):
        task.optimizer.step(gradients)  # type: ignore[no-untyped-call]
    else:
        gradients()
        task.precision.step(task.optimizer)
    loss, accuracy = found[0]
    return loss, None if accuracy is None else accuracy.item()


def _without_dropout(task: Task, batch: Any) -> float:
    task.model.eval()
    with torch.no_grad(), task.precision.autocast():
        _, measured = task.step(task.model, batch)
    task.model.train()
    return measured["accuracy"].item()


def _meaning(learned: bool, losses: list[float], lr: float) -> str:
    first, last = losses[0], losses[-1]
    if learned:
        return (
            "Model, loss and optimizer fit together. If training still does not get anywhere, "
            "look at the data, at regularisation and at the learning rate over many batches."
        )
    if not math.isfinite(last):
        return (
            f"The loss was no longer finite after {len(losses)} steps: lower the learning rate "
            f"({short(lr, 6)}), or clip gradients."
        )
    if last > first * (1 + _MOVED):
        rate = f"the learning rate ({short(lr, 6)})"
        return f"The loss rises: {rate} is too high, or the loss has a sign."
    quarter = losses[-max(1, len(losses) // 4)]
    if first - last < _MOVED * abs(first):
        return (
            "The loss has not moved: no gradient reaches the weights (frozen or detached "
            f"parameters, dead units, a saturated output), or the learning rate "
            f"({short(lr, 6)}) is far too low."
        )
    if quarter - last > _FALLING * (first - last):
        return (
            f"It is still falling: allow more steps, or raise the learning rate ({short(lr, 6)})."
        )
    return (
        "It fell a little and got stuck: labels may contradict each other, the output may not "
        "reach the targets (an activation at the end, too few units), gradients may vanish on "
        "their way, or the learning rate is too high."
    )
