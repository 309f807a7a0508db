"""A multilayer perceptron: linear maps with ReLU between them."""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    def __init__(
        self,
        in_features: int = 64,
        hidden: int = 128,
        depth: int = 2,
        out_features: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [in_features] + [hidden] * depth
        self.flatten = nn.Flatten()
        self.hidden = nn.ModuleList(
            nn.Sequential(
                nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])
            )
            for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(x)
        for layer in self.hidden:
            x = layer(x)
        return self.head(x)
