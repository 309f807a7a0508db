"""Targets of the batches: type, range, classes, and how they are spread over batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_MOST_CLASSES = 10_000
_BATCHES = 100
_FEW = 32  # float targets 0, 1, 2, … below this are taken for classes


class TargetFacts:
    """Accumulates over batches; integer targets (or one-hot, or 0/1 columns) have classes."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._counts: torch.Tensor | None = None
        self._batches = 0
        self._samples = 0
        self._step = -1
        self._within = 0.0  # mean spread inside batches
        self._sizes: list[int] = []
        self._sum = 0.0
        self._squares = 0.0
        self._integral = True

    @property
    def enough(self) -> bool:
        return self._batches >= _BATCHES

    def new_step(self, step: int) -> bool:
        """True once a step: a loss may be reported by its module and again by its graph."""
        fresh = step != self._step
        self._step = step
        return fresh

    def add(self, targets: Tensor, outputs: torch.Size | None = None) -> None:
        """A batch's targets, on the host, beside the shape of what they are compared with."""
        if targets.numel() == 0 or targets.is_complex():
            return
        if outputs is not None:
            self._compare(targets, outputs)
        self._batches += 1
        facts = self._facts
        facts.setdefault("shape", list(targets.shape))
        facts.setdefault("dtype", str(targets.dtype).removeprefix("torch."))
        values = targets.float()
        facts["min"] = min(float(values.min()), facts.get("min", float("inf")))
        facts["max"] = max(float(values.max()), facts.get("max", float("-inf")))
        facts["nonfinite"] = facts.get("nonfinite", 0) + int((~torch.isfinite(values)).sum())
        self._integral &= bool((values == values.round()).all())
        facts["one_hot"] = facts.get("one_hot", True) and _is_one_hot(values)
        classes = _classes(targets, values, bool(facts["one_hot"]), self._integral)
        if values.dim() == 2 and values.shape[1] > 1 and targets.dtype.is_floating_point:
            sums = bool(((values.sum(1) - 1).abs() < 1e-3).all()) and float(values.min()) >= 0
            facts["rows_sum_to_one"] = facts.get("rows_sum_to_one", True) and sums
        if classes is not None:
            self._count(classes)
        elif values.dim() <= 2:
            if self._counts is not None:  # numbers after all: what was counted means nothing
                self._counts, self._sizes, self._within, self._samples = None, [], 0.0, 0
            flat = values.reshape(len(values), -1)[:, 0] if values.dim() else values.reshape(1)
            self._spread(flat)

    def _compare(self, targets: Tensor, outputs: torch.Size) -> None:
        self._facts["outputs_shape"] = list(outputs)
        numbers = targets.dtype.is_floating_point
        if numbers and targets.shape != outputs and targets.numel() == outputs.numel():
            self._facts["shapes_differ"] = [list(outputs), list(targets.shape)]

    def _count(self, classes: Tensor) -> None:
        classes = classes.reshape(-1)
        classes = classes[(classes >= 0) & (classes < _MOST_CLASSES)]
        if not len(classes):
            return
        counts = torch.bincount(classes).double()
        share = counts / counts.sum()
        self._within += float(1 - share.square().sum())
        self._sizes.append(len(classes))
        self._samples += len(classes)
        if self._counts is None:
            self._counts = counts
        else:
            size = max(len(counts), len(self._counts))
            self._counts = _padded(self._counts, size) + _padded(counts, size)

    def _spread(self, values: Tensor) -> None:
        numbers = values.double()
        self._within += float(numbers.var(correction=0))
        self._sizes.append(len(numbers))
        self._samples += len(numbers)
        self._sum += float(numbers.sum())
        self._squares += float(numbers.square().sum())

    def document(self) -> dict[str, Any]:
        if not self._batches:
            return {}
        facts = dict(self._facts)
        facts |= {"integral": self._integral, "samples": self._samples, "batches": self._batches}
        total = 0.0
        if self._counts is not None:
            share = self._counts / self._counts.sum()
            total = float(1 - share.square().sum())
            facts["class_counts"] = [int(c) for c in self._counts[:1000]]
        elif self._samples:
            mean = self._sum / self._samples
            total = max(self._squares / self._samples - mean * mean, 0.0)
            facts["mean"], facts["std"] = mean, total**0.5
        facts["sorted"] = self._sortedness(total)
        return facts

    def _sortedness(self, total: float) -> float | None:
        """0 for random batches, 1 when every batch holds one class (or one value) only."""
        batches = len(self._sizes)
        if batches < 4 or total <= 1e-12 or min(self._sizes[:-1]) < 4:
            return None
        between = 1 - (self._within / batches) / total
        by_chance = min((batches - 1) / max(self._samples - 1, 1), 0.99)
        return (between - by_chance) / (1 - by_chance)


def _classes(targets: Tensor, values: Tensor, one_hot: bool, integral: bool) -> Tensor | None:
    if not targets.dtype.is_floating_point and targets.dtype != torch.bool:
        return targets.long()
    if one_hot:
        return values.argmax(1)
    if targets.dtype == torch.bool:
        return targets.long()
    few = integral and float(values.min()) >= 0 and float(values.max()) < _FEW
    if few and (values.dim() == 1 or (values.dim() == 2 and values.shape[1] == 1)):
        return values.long()
    return None


def _is_one_hot(values: Tensor) -> bool:
    if values.dim() != 2 or values.shape[1] < 2:
        return False
    return bool(((values == 0) | (values == 1)).all()) and bool((values.sum(1) == 1).all())


def _padded(counts: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(counts, (0, size - len(counts)))
