"""Which loss suits which task."""

from __future__ import annotations

from torch import nn

from inspector.catalog import Kind
from inspector.errors import ConfigError

SUITABLE: dict[Kind, dict[str, type[nn.Module]]] = {
    "classification": {"cross_entropy": nn.CrossEntropyLoss, "nll": nn.NLLLoss},
    "regression": {"mse": nn.MSELoss, "smooth_l1": nn.SmoothL1Loss},
    "reconstruction": {
        "mse": nn.MSELoss,
        "smooth_l1": nn.SmoothL1Loss,
        "bce_with_logits": nn.BCEWithLogitsLoss,
    },
}
"""Losses by kind of task; ``auto`` takes the first."""


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
