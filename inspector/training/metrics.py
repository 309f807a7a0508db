"""Metrics of held-out samples, by torchmetrics: over the whole part, not means over batches.

torchmetrics takes seconds to import, so this module is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import (
    KLDivergence,
    MeanAbsoluteError,
    MeanMetric,
    MeanSquaredError,
    Metric,
    MetricCollection,
    R2Score,
)
from torchmetrics import classification as by_class
from torchmetrics.text import CharErrorRate, Perplexity

from inspector import catalog
from inspector.catalog import Kind
from inspector.training.step import IGNORED
from inspector.training.transcription import greedy

Make = Callable[[int], Metric]
_QUICK: dict[str, Any] = {"validate_args": False}  # what it would check, the dry run has checked
_FIRST_CHARACTER = 0x100
_MOST_CLASSES = 100


class MacroAUROC(by_class.MulticlassAUROC):
    """One class against the rest, mean over the classes that occur in the part."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average=None, compute_on_cpu=True, **_QUICK)

    def compute(self) -> Tensor:  # type: ignore[override]
        scores: Any = super().compute()
        targets = self.target
        labels = targets if isinstance(targets, Tensor) else torch.cat(targets)
        mean: Tensor = scores[torch.unique(labels).to(scores.device)].mean()
        return mean


def _labels(name: str, **options: Any) -> Make:
    """Metrics of several labels, which torchmetrics tells apart from those of a single one."""

    def make(labels: int) -> Metric:
        if labels == 1:
            return getattr(by_class, f"Binary{name}")(**_QUICK)  # type: ignore[no-any-return]
        return getattr(by_class, f"Multilabel{name}")(labels, **options, **_QUICK)  # type: ignore[no-any-return]

    return make


_OF_CLASSES: dict[str, Make] = {
    "accuracy": lambda n: by_class.MulticlassAccuracy(n, average="micro", **_QUICK),
    "f1": lambda n: by_class.MulticlassF1Score(n, average="macro", **_QUICK),
    "precision": lambda n: by_class.MulticlassPrecision(n, average="macro", **_QUICK),
    "recall": lambda n: by_class.MulticlassRecall(n, average="macro", **_QUICK),
}
_CONFUSION: dict[str, Make] = {
    "confusion_matrix": lambda n: by_class.MulticlassConfusionMatrix(n, **_QUICK)
}
_OF_NUMBERS: dict[str, Make] = {
    "mae": lambda _: MeanAbsoluteError(),
    "rmse": lambda _: MeanSquaredError(squared=False),
}
_BY_CLASS: tuple[Kind, ...] = ("classification", "sequence", "per_pixel")
_MAKE: dict[Kind, dict[str, Make]] = {
    "classification": {**_OF_CLASSES, "auroc": MacroAUROC, **_CONFUSION},
    "multi_label": {
        "accuracy": _labels("Accuracy", average="micro"),
        "exact_match": lambda n: by_class.MultilabelExactMatch(n, **_QUICK),
        "f1": _labels("F1Score", average="macro"),
        "precision": _labels("Precision", average="macro"),
        "recall": _labels("Recall", average="macro"),
        "auroc": _labels("AUROC", average="macro", compute_on_cpu=True),
    },
    "regression": {**_OF_NUMBERS, "r2": lambda _: R2Score()},
    "reconstruction": _OF_NUMBERS,
    "sequence": {
        "accuracy": _OF_CLASSES["accuracy"],
        "perplexity": lambda _: Perplexity(),
    },
    "per_pixel": {
        **_OF_CLASSES,
        "mean_iou": lambda n: by_class.MulticlassJaccardIndex(n, average="macro", **_QUICK),
        **_CONFUSION,
    },
    "distribution": {
        "accuracy": _OF_CLASSES["accuracy"],
        "kl_divergence": lambda _: KLDivergence(),
    },
    "transcription": {
        "sequence_accuracy": lambda _: MeanMetric(),
        "char_error_rate": lambda _: CharErrorRate(),
    },
    "own": {},
}


class Metrics:
    """Takes in outputs and targets batch by batch, and computes at the end."""

    def __init__(self, wanted: Sequence[Any], kind: Kind, device: torch.device) -> None:
        self._names, self._kind, self._device = catalog.metrics(wanted, kind), kind, device
        self._made: MetricCollection | None = None

    def update(self, outputs: Tensor, targets: Any) -> None:
        """One batch; the number of classes is that of the first batch's outputs."""
        if not self._names:
            return
        predicted, true, classes = _compared(self._kind, outputs.detach().float(), targets)
        if self._kind in _BY_CLASS and bool((true == IGNORED).any()):
            predicted, true = _without_padding(self._kind, predicted, true)
        if self._made is None:
            made = {name: _make(name, self._kind, classes) for name in self._names}
            self._made = MetricCollection(made).to(self._device)  # type: ignore[arg-type]
        if self._kind == "transcription":
            self._read(predicted, true)
        elif self._kind == "distribution":
            self._made["accuracy"].update(predicted, true.argmax(1))
            if "kl_divergence" in self._names:
                self._made["kl_divergence"].update(true, predicted.softmax(1))
        elif self._kind == "sequence":
            self._made["accuracy"].update(predicted.flatten(0, 1), true.flatten())
            if "perplexity" in self._names:
                self._made["perplexity"].update(predicted, true)
        else:
            self._made.update(predicted, true)

    def compute(self) -> tuple[dict[str, float], list[list[int]]]:
        """The numbers by name, those that are defined; and rows of true by columns of predicted."""
        numbers: dict[str, float] = {}
        confusion: list[list[int]] = []
        for name, metric in (self._made or {}).items():
            # r² of one sample, the curve of one class: not defined, so not shown.
            with warnings.catch_warnings(), contextlib.suppress(ValueError, IndexError):
                warnings.simplefilter("ignore")
                value = metric.compute()
                if name == "confusion_matrix":
                    confusion = value[:_MOST_CLASSES, :_MOST_CLASSES].tolist()
                else:
                    numbers[name] = float(value)
        return numbers, confusion

    def _read(self, read: list[str], true: list[str]) -> None:
        assert self._made is not None
        if "sequence_accuracy" in self._names:
            right = [float(one == other) for one, other in zip(read, true, strict=True)]
            self._made["sequence_accuracy"].update(torch.tensor(right, device=self._device))
        if "char_error_rate" in self._names:
            self._made["char_error_rate"].update(read, true)


def _compared(kind: Kind, outputs: Tensor, targets: Any) -> tuple[Any, Any, int]:
    """Predictions and targets as torchmetrics takes them, and the number of classes."""
    classes = outputs.shape[1] if outputs.ndim > 1 else 1
    if kind == "classification":
        return outputs.softmax(1), targets, classes
    if kind == "multi_label":
        return outputs.sigmoid(), targets.long(), classes
    if kind == "sequence":
        return outputs, targets, outputs.shape[2]
    if kind == "per_pixel":
        return outputs.flatten(2), targets.flatten(1), classes
    if kind == "transcription":
        labels = [
            row[:length].tolist()
            for row, length in zip(targets.labels, targets.label_lengths.tolist(), strict=True)
        ]
        return _text(greedy(outputs, targets.input_lengths)), _text(labels), classes
    if kind in ("regression", "reconstruction"):
        return outputs.flatten(1), targets.flatten(1), classes
    return outputs, targets, classes


def _without_padding(kind: Kind, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and targets one after the other, without those that are to be ignored."""
    known = true != IGNORED
    scores = predicted.movedim(1, -1) if kind == "per_pixel" else predicted
    if kind == "sequence":
        return scores[known][None], true[known][None]
    return scores[known], true[known]


def _make(name: str, kind: Kind, classes: int) -> Metric:
    top = catalog.places_of(name, kind)
    if top:
        return by_class.MulticlassAccuracy(
            classes, top_k=min(top, classes), average="micro", **_QUICK
        )
    return _MAKE[kind][name](classes)


def _text(labels: list[list[int]]) -> list[str]:
    return ["".join(chr(_FIRST_CHARACTER + label) for label in row) for row in labels]
