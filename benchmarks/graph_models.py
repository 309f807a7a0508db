"""The models whose graphs are measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import resnet152, vit_b_16


class Unrolled(nn.Module):
    """An LSTM cell called once a time step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 16)
        self.head = nn.Linear(16, 2)
        self.steps = steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(len(x), 16)
        for _ in range(self.steps):
            h, c = self.cell(x, (h, c))
        return self.head(h)


class Scored(nn.Module):
    """A model with a loss, so that one call makes the whole graph; the loss is kept."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.loss = self.model(x).logsumexp(1).mean()
        return self.loss


def _mlp() -> nn.Module:
    layers = [nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)]
    return nn.Sequential(*layers)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (_mlp, (32, 8)),
    "resnet152": (resnet152, (2, 3, 64, 64)),
    "vit_b_16": (lambda: vit_b_16(image_size=32), (2, 3, 32, 32)),
    "lstm100": (lambda: Unrolled(100), (2, 8)),
    "lstm1000": (lambda: Unrolled(1000), (2, 8)),
}
"""Constructor and shape of the input, by name."""


def model_and_input(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model and what it is called with."""
    torch.manual_seed(0)
    build, shape = MODELS[name]
    return build(), torch.randn(shape)
