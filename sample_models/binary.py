"""A network with binary activations and a gradient of its own: a custom ``autograd.Function``.

The derivative of sign is zero almost everywhere, so plain autograd would learn nothing. The
straight-through estimator (Bengio et al., 2013) passes the gradient where the input is in [-1, 1].
"""

from typing import Any

import torch
from torch import Tensor, nn


class StraightThroughSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * (x.abs() <= 1)


class Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return StraightThroughSign.apply(x)


class BinaryMLP(nn.Module):
    def __init__(self, in_features: int = 64, hidden: int = 128, out_features: int = 10) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(in_features, hidden)
        self.sign1 = Sign()
        self.fc2 = nn.Linear(hidden, hidden)
        self.sign2 = Sign()
        self.head = nn.Linear(hidden, out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sign1(self.fc1(self.flatten(x)))
        x = self.sign2(self.fc2(x))
        return self.head(x)
