"""Many sigmoid layers in a row: the gradient shrinks at each of them and vanishes on its way."""

from torch import Tensor, nn


class DeepSigmoid(nn.Module):
    def __init__(
        self, in_features: int = 64, hidden: int = 64, depth: int = 12, out_features: int = 10
    ) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Sequential(nn.Linear(in_features, hidden), nn.Sigmoid())
        self.deep = nn.Sequential(
            *(nn.Sequential(nn.Linear(hidden, hidden), nn.Sigmoid()) for _ in range(depth - 1))
        )
        self.head = nn.Linear(hidden, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep(self.first(self.flatten(x))))
