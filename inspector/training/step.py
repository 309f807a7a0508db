"""One step's loss and scores: from inputs and targets, or by a training step of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from inspector.catalog import Kind
from inspector.errors import ModelError

IGNORED = -100
"""A target that counts for nothing, as in ``torch.nn.CrossEntropyLoss``."""

Scores = dict[str, Tensor]


class Step(Protocol):
    """Computes the loss of a batch, and what is measured beside it."""

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]: ...


@dataclass(frozen=True, slots=True)
class Judged:
    """A held-out batch.

    Attributes:
        numbers: what the user's own step measured, to be averaged.
        outputs, targets: what metrics are made of; None where the step keeps them to itself.
        kind: how they are compared.
    """

    loss: Tensor
    numbers: Scores = field(default_factory=dict)
    outputs: Tensor | None = None
    targets: Any = None
    kind: Kind = "own"


class Judge(Protocol):
    """Computes the loss of a held-out batch, and what metrics are made of."""

    def judge(self, model: nn.Module, batch: Any) -> Judged: ...


@dataclass(frozen=True, slots=True)
class Supervised:
    """The loss between the model's outputs and the targets."""

    loss_fn: nn.Module
    kind: Kind

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]:
        inputs, targets = batch
        outputs = model(inputs)
        return self.loss_fn(outputs, targets), scores(self.kind, outputs, targets)

    def judge(self, model: nn.Module, batch: Any) -> Judged:
        inputs, targets = batch
        outputs = model(inputs)
        loss = self.loss_fn(outputs, targets)
        return Judged(loss, outputs=outputs, targets=targets, kind=self.kind)


@dataclass(frozen=True, slots=True)
class Own:
    """A user's ``training_step(model, batch)``: gives a loss, or a dict of it and more.

    Under ``predictions`` and ``targets`` are what metrics are made of, under any other name is a
    number to record.
    """

    function: Callable[[nn.Module, Any], Any]

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]:
        judged = self.judge(model, batch)
        if judged.outputs is None:
            return judged.loss, judged.numbers
        found = scores(judged.kind, judged.outputs, judged.targets, padded=True)
        return judged.loss, found | judged.numbers

    def judge(self, model: nn.Module, batch: Any) -> Judged:
        result = self.function(model, batch)
        measured: Mapping[str, Any] = result if isinstance(result, Mapping) else {"loss": result}
        loss = measured.get("loss")
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = (
                f"a tensor of shape {tuple(loss.shape)}"
                if isinstance(loss, Tensor)
                else f"a {type(result).__name__}"
            )
            raise ModelError(
                f"Expected {self.function.__name__} to return a loss of one number, or a dict with "
                f"'loss', but got {got}."
            )
        compared = "predictions" in measured and "targets" in measured
        apart = ("loss", "predictions", "targets") if compared else ("loss",)
        numbers = {
            str(name): self._number(str(name), value)
            for name, value in measured.items()
            if name not in apart
        }
        if not compared:
            return Judged(loss, numbers)
        kind, outputs, targets = self._compared(measured["predictions"], measured["targets"])
        return Judged(loss, numbers, outputs, targets, kind)

    def _number(self, name: str, value: Any) -> Tensor:
        number = torch.as_tensor(value, dtype=torch.float32).detach()
        if number.numel() == 1:
            return number.reshape(())
        pair = {"predictions": "targets", "targets": "predictions"}.get(name)
        raise ModelError(
            f"Expected numbers beside the loss of {self.function.__name__}, but {name!r} is a "
            f"tensor of shape {tuple(number.shape)}; "
            + (f"return {pair!r} with it, to measure both." if pair else "return its mean.")
        )

    def _compared(self, predictions: Any, targets: Any) -> tuple[Kind, Tensor, Tensor]:
        """How they are compared, told by their shapes, and both in the form that it takes."""
        if not (isinstance(predictions, Tensor) and isinstance(targets, Tensor)):
            kinds = f"{type(predictions).__name__} and {type(targets).__name__}"
            raise ModelError(
                f"Expected 'predictions' and 'targets' of {self.function.__name__} to be tensors, "
                f"but got {kinds}."
            )
        predictions, targets = predictions.detach(), targets.detach()
        shape, wanted = tuple(predictions.shape), tuple(targets.shape)
        whole = not targets.is_floating_point() and targets.dtype != torch.bool
        if predictions.is_floating_point() and wanted:
            if whole and shape[:-1] == wanted and shape[-1] > 1:
                if len(wanted) == 1:
                    return "classification", predictions, targets
                return "sequence", predictions.flatten(1, -2), targets.flatten(1)
            if whole and len(shape) > 2 and shape[:1] + shape[2:] == wanted and shape[1] > 1:
                return "per_pixel", predictions, targets
            if shape[:1] == wanted[:1] and predictions.numel() == targets.numel():
                columns = (len(targets), -1) if len(shape) == 2 else (-1, 1)
                kind: Kind = "regression" if targets.is_floating_point() else "multi_label"
                return kind, predictions.reshape(columns), targets.reshape(columns)
        raise ModelError(
            f"Expected 'predictions' of {self.function.__name__} to be scores for each class "
            "(before softmax or argmax) with class numbers as 'targets', or numbers of the shape "
            f"of the targets, but got {predictions.dtype} {shape} and {targets.dtype} {wanted}."
        )


def scores(kind: Kind, outputs: Tensor, targets: Tensor, *, padded: bool = False) -> Scores:
    """The accuracy, where there is one: the share of right classes, characters, pixels, labels.

    Args:
        padded: classes that are :data:`IGNORED` do not count.
    """
    outputs = outputs.detach()
    if kind in ("classification", "per_pixel"):
        right = outputs.argmax(dim=1) == targets
    elif kind == "distribution":
        right = outputs.argmax(dim=1) == targets.argmax(dim=1)
    elif kind == "sequence":
        right = outputs.argmax(dim=-1) == targets
    elif kind == "multi_label":
        right = (outputs > 0) == (targets > 0.5)
    else:
        return {}
    if padded and kind != "multi_label":
        return {"accuracy": right.sum() / (targets != IGNORED).sum().clamp(min=1)}
    return {"accuracy": right.float().mean()}
