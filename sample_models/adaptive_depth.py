"""A network that decides from the data how deep it is: its autograd graph differs per batch.

One block is applied again and again until the batch's mean activation has passed a threshold.
"""

from torch import Tensor, nn


class AdaptiveDepth(nn.Module):
    def __init__(
        self,
        in_features: int = 2,
        hidden: int = 32,
        max_depth: int = 6,
        threshold: float = 0.5,
        out_features: int = 3,
    ) -> None:
        super().__init__()
        self.max_depth = max_depth
        self.threshold = threshold
        self.flatten = nn.Flatten()
        self.first = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU())
        self.block = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.flatten(x))
        for _ in range(self.max_depth):
            x = x + self.block(x)
            if x.detach().mean() > self.threshold:
                break
        return self.head(x)
