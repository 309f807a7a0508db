"""A long short-term memory network that classifies a sequence by its last state."""

from torch import Tensor, nn


class LSTM(nn.Module):
    def __init__(
        self, in_features: int = 8, hidden: int = 64, layers: int = 1, num_classes: int = 8
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(in_features, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        return self.head(states[:, -1])
