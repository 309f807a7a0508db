"""A recurrent network with its loop written out: h ← tanh(W x + U h).

The backward pass multiplies by U once per time step. ``gain`` scales U at the start: well above 1
the gradient grows exponentially with the length of the sequence and explodes, below 1 it vanishes.
"""

import torch
from torch import Tensor, nn


class RNNCell(nn.Module):
    def __init__(self, in_features: int, hidden: int, gain: float) -> None:
        super().__init__()
        self.input = nn.Linear(in_features, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        nn.init.orthogonal_(self.recurrent.weight, gain)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.input(x) + self.recurrent(h))


class RNN(nn.Module):
    def __init__(
        self, in_features: int = 8, hidden: int = 64, gain: float = 1.3, num_classes: int = 8
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = RNNCell(in_features, hidden, gain)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.hidden)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.head(h)
