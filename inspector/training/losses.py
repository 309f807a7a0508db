"""Which loss suits which task."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from inspector.catalog import Kind
from inspector.errors import ConfigError
from inspector.training.distribution import DistributionKLDiv
from inspector.training.signatures import check_arguments
from inspector.training.transcription import TranscriptLoss

_FIXED = ("size_average", "reduce", "reduction")  # a step's loss is one number: the mean


class SequenceCrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy over all places: scores [n, steps, classes], targets [n, steps]."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input.flatten(0, -2), target.flatten())


SUITABLE: dict[Kind, dict[str, type[nn.Module]]] = {
    "classification": {"cross_entropy": nn.CrossEntropyLoss, "nll": nn.NLLLoss},
    "multi_label": {"bce_with_logits": nn.BCEWithLogitsLoss},
    "regression": {"mse": nn.MSELoss, "smooth_l1": nn.SmoothL1Loss},
    "reconstruction": {
        "mse": nn.MSELoss,
        "smooth_l1": nn.SmoothL1Loss,
        "bce_with_logits": nn.BCEWithLogitsLoss,
    },
    "sequence": {"cross_entropy": SequenceCrossEntropy},
    "per_pixel": {"cross_entropy": nn.CrossEntropyLoss, "nll": nn.NLLLoss},
    "distribution": {"kl_div": DistributionKLDiv, "cross_entropy": nn.CrossEntropyLoss},
    "transcription": {"ctc": TranscriptLoss},
}
"""Losses by kind of task; ``auto`` takes the first. A step of the user's own has its own."""


def build_loss(
    name: str, kind: Kind, arguments: dict[str, Any] | None = None, *, outputs: int = 0
) -> nn.Module:
    """The loss of that name, for that task.

    Args:
        arguments: of its constructor; ``weight`` and ``pos_weight`` as lists, with one number for
            each class.
        outputs: number of classes; 0 if it is not known.

    Raises:
        ConfigError: the loss cannot compare what the task gives it, or an argument is unknown or
            cannot be used.
    """
    choices = SUITABLE[kind]
    if name == "auto":
        name = next(iter(choices))
    if name not in choices:
        raise ConfigError(
            f"Loss {name} does not suit a {kind} task; choose auto, {', '.join(choices)}."
        )
    cls, given = choices[name], dict(arguments or {})
    check_arguments(cls, given, setting="loss_args", name=f"Loss {name}", reserved=_FIXED)
    for key in ("label_smoothing", "beta"):
        if key in given and not 0 <= given[key] <= (1 if key == "label_smoothing" else math.inf):
            least = "from 0 to 1" if key == "label_smoothing" else "0 or more"
            raise ConfigError(f"loss_args.{key} must be {least}, but got {given[key]!r}.")
    for key in {"weight", "pos_weight"} & {k for k, value in given.items() if value is not None}:
        given[key] = _weights(key, given[key], kind, outputs)
    return cls(**given)


def _weights(key: str, values: Any, kind: Kind, outputs: int) -> Tensor:
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(one, (int, float)) and math.isfinite(one) and one >= 0 for one in values
    ):
        raise ConfigError(
            f"loss_args.{key} must be a list of numbers, 0 or more, but got {values!r:.80}."
        )
    wanted = 1 if kind == "reconstruction" else outputs
    if wanted and len(values) != wanted:
        what = f"one number for each of {wanted} classes" if wanted > 1 else "one number"
        raise ConfigError(
            f"loss_args.{key} must be a list with {what}, but got {len(values)} numbers."
        )
    return torch.tensor(values, dtype=torch.float32)
