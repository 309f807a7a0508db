"""An autoencoder: squeezes a sample through a narrow code and paints it again."""

from torch import Tensor, nn


class Autoencoder(nn.Module):
    def __init__(self, in_features: int = 64, hidden: int = 64, code: int = 8) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.encoder = nn.Sequential(
            nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, in_features)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(self.flatten(x))).view_as(x)
