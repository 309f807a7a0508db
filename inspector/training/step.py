"""One step's loss and scores: from inputs and targets, or by a training step of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from inspector.catalog import Kind
from inspector.errors import ModelError

Scores = dict[str, Tensor]


class Step(Protocol):
    """Computes the loss of a batch, and what is measured beside it."""

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]: ...


@dataclass(frozen=True, slots=True)
class Supervised:
    """The loss between the model's outputs and the targets."""

    loss_fn: nn.Module
    kind: Kind

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]:
        inputs, targets = batch
        outputs = model(inputs)
        return self.loss_fn(outputs, targets), scores(self.kind, outputs, targets)


@dataclass(frozen=True, slots=True)
class Own:
    """A user's ``training_step(model, batch)``: gives a loss, or a dict of it and more numbers."""

    function: Callable[[nn.Module, Any], Any]

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]:
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
        others = {
            str(name): torch.as_tensor(value, dtype=torch.float32).detach()
            for name, value in measured.items()
            if name != "loss"
        }
        return loss, others


def scores(kind: Kind, outputs: Tensor, targets: Tensor) -> Scores:
    """The accuracy, where there is one: the share of right classes, characters, pixels, labels."""
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
    return {"accuracy": right.float().mean()}
