"""Which loss suits which task."""

from __future__ import annotations

from torch import Tensor, nn

from inspector.catalog import Kind
from inspector.errors import ConfigError
from inspector.training.distribution import DistributionKLDiv
from inspector.training.transcription import TranscriptLoss


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


def build_loss(name: str, kind: Kind) -> nn.Module:
    """Raises ConfigError when the loss cannot compare what the task gives it."""
    choices = SUITABLE[kind]
    if name == "auto":
        name = next(iter(choices))
    if name not in choices:
        raise ConfigError(
            f"Loss {name} does not suit a {kind} task; choose auto, {', '.join(choices)}."
        )
    return choices[name]()
