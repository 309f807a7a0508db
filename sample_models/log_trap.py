"""An MLP with a trap: a logarithm, and nothing keeps its argument above zero.

At the start the argument is near 1 and all is well. Training lowers the scores of the wrong
classes, that is, it pushes their arguments down, until one of them is negative: log → NaN.
"""

import torch
from torch import Tensor, nn


class LogScore(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(1 + x)


class LogTrap(nn.Module):
    def __init__(self, in_features: int = 64, hidden: int = 64, out_features: int = 10) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(in_features, hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, out_features)
        self.score = LogScore()
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.score(self.fc2(self.relu(self.fc1(self.flatten(x)))))
        return torch.log_softmax(scores, dim=1)
