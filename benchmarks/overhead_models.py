"""The models that watching is measured on; needs nothing but PyTorch (and torchvision for one)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Built = tuple[nn.Module, Tensor, Tensor]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int, length: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position))).flatten(0, 1)


def tiny_mlp() -> Built:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, torch.randn(64, 64), torch.randint(0, 10, (64,))


def cnn() -> Built:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    return model, torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))


def resnet18(batch: int = 128 if torch.cuda.is_available() else 16) -> Built:
    from torchvision.models import resnet18 as build

    return build(num_classes=10), torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))


def gpt() -> Built:
    width, length, batch = (768, 512, 8) if torch.cuda.is_available() else (128, 64, 8)
    tokens = torch.randint(0, 256, (batch, length + 1))
    model = GPT(256, width, length, 4)
    return model, tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()


def deep_mlp() -> Built:
    layers = [part for _ in range(200) for part in (nn.Linear(64, 64), nn.Tanh())]
    return (
        nn.Sequential(*layers, nn.Linear(64, 10)),
        torch.randn(64, 64),
        torch.randint(0, 10, (64,)),
    )


MODELS: dict[str, tuple[Callable[[], Built], float]] = {
    "MLP 64-128-128-10": (tiny_mlp, 1.15),
    "CNN 28×28": (cnn, 1.05),
    "ResNet-18 32×32": (resnet18, 1.05),
    "GPT 4 × 128": (gpt, 1.05),
    "MLP 200 deep": (deep_mlp, 1.15),
}
"""How each is built, and what watching every step may make of its step time."""

AUTOMATIC_DEMAND = 1.03
