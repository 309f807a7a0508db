"""Tries rising learning rates on a copy of the training and suggests one.

The rate grows geometrically over the trial steps; the loss is smoothed; the trial ends when it
exceeds four times its best. The suggestion is where the smoothed loss falls steepest over
log(lr) (Smith 2017; fastai and Lightning use the same limits: 100 steps, 4 × best).

The rates of further groups and optimizers that take part keep their ratios to the first one, as
they do when the suggestion is set.

Batches differ more than one step changes the loss, above all in a model that has learnt already.
So each loss is compared with that of the unchanged model on the same batch, and only the
difference is smoothed.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.errors import CommandError
from inspector.numerals import short
from inspector.timemachine.state import random_state, set_random_state
from inspector.training.own.batches import to_device

LossOf = Callable[[nn.Module, Any], Tensor]
_SMOOTHING = 0.9
_DIVERGED = 4.0
_LEAST_FALL = 0.002  # of the loss; less than that is chance
_CLEAR_FALL = 0.02
_SKIP_FIRST, _SKIP_LAST = 5, 1
_HALF = 5  # steps on either side that are averaged for the curve


@dataclass(slots=True)
class LrCurve:
    """What the trial has measured.

    Attributes:
        lrs, losses, smoothed: one entry for each trial step; losses are those of an average
            batch: the unchanged model's mean loss plus what the trial has changed.
        suggestion: None when the loss never fell.
        note: why the trial ended, or why there is no suggestion.
    """

    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    suggestion: float | None = None
    note: str = ""

    def document(self) -> dict[str, Any]:
        """JSON for the store."""
        return {
            "lrs": self.lrs,
            "losses": self.losses,
            "smoothed": self.smoothed,
            "suggestion": self.suggestion,
            "note": self.note,
        }


def find_lr(
    model: nn.Module,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loss_fn: nn.Module | LossOf,
    batches: Iterable[Any],
    *,
    group: int | None = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
) -> LrCurve:
    """Runs the trial on copies; model, optimizer and random numbers stay as they are, bit by bit.

    Args:
        optimizers: those that take part. What the first group of the first one steps with is the
            rate that rises. Parameters of no optimizer that takes part stay as they are.
        loss_fn: a module between outputs and targets, or what computes a batch's loss itself.
        batches: inputs and targets, or whatever that takes; repeated if there are too few.
            Iterating it must be harmless.
        group: position of the only parameter group that takes part; None for all.

    Raises:
        CommandError: there is no batch, or an optimizer is LBFGS.
    """
    if isinstance(optimizers, torch.optim.Optimizer):
        optimizers = [optimizers]
    if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in optimizers):
        raise CommandError(
            "Expected an optimizer that steps along the gradient at hand, but LBFGS evaluates the "
            "loss several times a step; try learning rates between 0.1 and 1."
        )
    kept = Randomness()
    try:
        twin, trials = copy.deepcopy((model, list(optimizers)))
        unchanged = copy.deepcopy(twin)
        if group is not None:
            trials[0].param_groups = [trials[0].param_groups[group]]
        if isinstance(loss_fn, nn.Module):
            loss_fn = _supervised(copy.deepcopy(loss_fn))
        sweep = _Sweep(twin, trials, loss_fn, unchanged)
        return sweep.run(_endless(batches), low, high, steps)
    finally:
        kept.restore()


class Randomness:
    """Python's, NumPy's and torch's random numbers as they are now."""

    def __init__(self) -> None:
        self._torch = random_state()
        self._numpy = np.random.get_state()
        self._python = random.getstate()

    def restore(self) -> None:
        set_random_state(self._torch)
        np.random.set_state(self._numpy)
        random.setstate(self._python)


def _supervised(loss_fn: nn.Module) -> LossOf:
    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        loss = loss_fn(model(inputs), targets)
        assert isinstance(loss, Tensor)
        return loss

    return loss_of


def loader_batches(loader: Any, device: torch.device) -> Iterator[Any]:
    """Batches of a loader, whose generator goes on afterwards as if nobody had looked."""
    generator = getattr(loader, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    try:
        for batch in loader:
            yield to_device(batch, device)
    finally:
        if state is not None and generator is not None:
            generator.set_state(state)


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    seen = []
    for batch in batches:
        seen.append(batch)
        yield batch
    if not seen:
        raise CommandError("The learning rate finder needs a batch; let the run make a step first.")
    while True:
        yield from seen


class _Sweep:
    """The trial: a copy that learns, beside one that does not."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        loss_of: LossOf,
        unchanged: nn.Module,
    ) -> None:
        self._model, self._unchanged = model.train(), unchanged.train()
        self._optimizers, self._loss_of = optimizers, loss_of
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        lead = float(groups[0]["lr"])
        self._shares = [(one, float(one["lr"]) / lead if lead > 0 else 1.0) for one in groups]
        self._usual: list[float] = []
        self._changes: list[float] = []
        self._average = 0.0
        self._smoothed: list[float] = []

    def run(self, batches: Iterator[Any], low: float, high: float, steps: int) -> LrCurve:
        curve, best = LrCurve(), math.inf
        for number in range(steps):
            lr = low * (high / low) ** (number / max(1, steps - 1))
            if not self._step(lr, next(batches)):
                curve.note = f"stopped at {short(lr, 2)}: the loss was not finite"
                break
            curve.lrs.append(lr)
            loss = float(np.mean(self._usual)) + self._smoothed[-1]
            best = min(best, loss)
            if number > _SKIP_FIRST and loss > _DIVERGED * max(best, 0.0):
                curve.note = f"stopped at {short(lr, 2)}: the loss was over four times its best"
                break
        usual = float(np.mean(self._usual)) if self._usual else 0.0
        curve.losses = [usual + change for change in self._changes]
        curve.smoothed = [usual + change for change in centred(self._changes)]
        if usual - min(curve.smoothed, default=usual) > _LEAST_FALL * abs(usual):
            curve.suggestion = steepest(curve.lrs, curve.smoothed)
        if curve.suggestion is None:
            curve.note = (curve.note + "; " if curve.note else "") + "the loss fell nowhere"
        return curve

    def _step(self, lr: float, batch: Any) -> bool:
        """One trial step; False when its loss is not finite."""
        random = random_state()
        with torch.no_grad():
            usual = self._loss_of(self._unchanged, batch).item()
        set_random_state(random)  # the same dropout for both
        for group, share in self._shares:
            held, rate = group["lr"], lr * share
            group["lr"] = torch.full_like(held, rate) if isinstance(held, Tensor) else rate
        with torch.enable_grad():
            self._model.zero_grad()
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            loss = self._loss_of(self._model, batch)
            value = loss.item()
            if not math.isfinite(value) or not math.isfinite(usual):
                return False
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in self._optimizers:
                optimizer.step()
        self._usual.append(usual)
        self._changes.append(value - usual)
        self._average = _SMOOTHING * self._average + (1 - _SMOOTHING) * (value - usual)
        self._smoothed.append(self._average / (1 - _SMOOTHING ** len(self._changes)))
        return True


def centred(values: Sequence[float]) -> list[float]:
    """A moving average without delay, weighted by a triangle; narrower at the ends."""
    weights = np.concatenate((np.arange(1, _HALF + 1), np.arange(_HALF - 1, 0, -1))).astype(float)
    if not values:
        return []
    sums = np.convolve(values, weights, mode="full")[_HALF - 1 :][: len(values)]
    shares = np.convolve(np.ones(len(values)), weights, mode="full")[_HALF - 1 :][: len(values)]
    return [float(value) for value in sums / shares]


def _valley(losses: Sequence[float]) -> int:
    """Position of the lowest loss before the first rise by half of what it had fallen."""
    best = 0
    for at, loss in enumerate(losses):
        fall = losses[0] - losses[best]
        if loss < losses[best]:
            best = at
        elif fall > _CLEAR_FALL * abs(losses[0]) and loss - losses[best] > fall / 2:
            break
    return best


def steepest(lrs: Sequence[float], losses: Sequence[float]) -> float | None:
    """The learning rate at which the loss falls fastest over log(lr); None if it never falls.

    A fall after a clear rise does not count: from there on steps are too long, and it is luck.
    """
    last = len(losses) - _SKIP_LAST
    if last - _SKIP_FIRST < 3:
        return None
    end = max(min(last, _valley(losses) + 1), _SKIP_FIRST + 3)
    x, y = np.log(lrs[_SKIP_FIRST:end]), np.asarray(losses[_SKIP_FIRST:end])
    slopes = np.gradient(y, x)
    found = int(np.argmin(slopes))
    return float(lrs[_SKIP_FIRST + found]) if slopes[found] < 0 else None
