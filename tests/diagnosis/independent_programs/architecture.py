"""Faults in how a model is built."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from labelled_programs.variation import Variation
from torch import Tensor, nn

from independent_programs.catalog import faulty
from independent_programs.material import (
    batches,
    characters,
    classes_of_table,
    images,
    table,
    tokens,
    train,
    waves,
)

# ---------------------------------------------------------------- vanishing and exploding


@faulty("vanishing_gradient")
def sigmoid_convnet(v: Variation, broken: bool) -> None:
    """Seven convolutions with sigmoids between; the twin is normalised and uses ReLU."""
    x, y = images()
    width = v.choose(8, 12)
    parts: list[nn.Module] = []
    for index in range(v.choose(6, 7, 8)):
        parts.append(nn.Conv2d(width if index else 1, width, 3, padding=1))
        parts += [nn.Sigmoid()] if broken else [nn.BatchNorm2d(width), nn.ReLU()]
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=120)


@faulty("vanishing_gradient")
def thirty_plain_layers(v: Variation, broken: bool) -> None:
    """PyTorch's default initialisation shrinks the signal at each ReLU; residuals mend it."""
    x, y = classes_of_table(v, 4)
    width = v.choose(32, 48)

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(x.shape[1], width)
            self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(28))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            for block in self.blocks:
                h = F.relu(block(h)) if broken else h + 0.3 * F.relu(block(h))
            return self.head(h if broken else self.norm(h))

    model = Deep()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(5e-4, 1e-3))
    train(v, model, optimizer, F.cross_entropy, batches(x, y), steps=130)


@faulty("vanishing_gradient")
def sigmoid_autoencoder_too_deep(v: Variation, broken: bool) -> None:
    x, _ = images()
    x = (x.flatten(1) * 6 + 4.9) / 16
    act = nn.Sigmoid if broken else nn.ELU
    sizes = [64, 48, 40, 32, 24, 16, 24, 32, 40, 48]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        parts += [nn.Linear(a, b), act()]
    model = nn.Sequential(*parts, nn.Linear(48, 64), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, x, size=64), steps=220)


@faulty("exploding_gradient")
def recurrence_grows(v: Variation, broken: bool) -> None:
    """A ReLU recurrence whose matrix has a spectral radius well above one."""
    x, y = waves(v.choose(30, 40))
    width = 32

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(1, width)
            self.again = nn.Linear(width, width, bias=False)
            self.out = nn.Linear(width, 1)
            with torch.no_grad():
                self.again.weight.copy_(torch.eye(width) * (1.25 if broken else 0.9))

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), width)
            for value in x.unbind(1):
                state = torch.relu(self.into(value) + self.again(state))
            return self.out(state)

    model = Recurrent()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y), steps=120)


@faulty("exploding_gradient")
def residuals_without_norm(v: Variation, broken: bool) -> None:
    """h = h + f(h), thirty times, He-initialised and unscaled: doubles at each block."""
    x, y = images()
    width = 48

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(64, width)
            self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(30))
            self.head = nn.Linear(width, 10)
            for block in self.blocks:
                nn.init.kaiming_normal_(block.weight)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x.flatten(1))
            for block in self.blocks:
                h = h + torch.relu(block(h)) * (1.0 if broken else 1 / 30)
            return self.head(h)

    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.01, 0.03))
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=100, clip=0)


# ---------------------------------------------------------------- dead and saturated


@faulty("dead_relu")
def batch_norm_shifted_down(v: Variation, broken: bool) -> None:
    """Someone set the beta of the normalisation to a negative 'warm start' value."""
    x, y = images()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 36, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    if broken:
        for module in model:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.constant_(module.bias, -v.choose(6.0, 8.0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("dead_relu")
def negative_weights_on_counts(v: Variation, broken: bool) -> None:
    """Non-negative features into weights drawn from [-1/√n, 0]: no unit ever fires."""
    x, y = classes_of_table(v, 3)
    x = x.abs()
    first = nn.Linear(x.shape[1], 64)
    if broken:
        with torch.no_grad():
            first.weight.copy_(-first.weight.abs())
            first.bias.copy_(-first.bias.abs())
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, F.cross_entropy, batches(x, y))


@faulty("saturated_activation")
def tanh_recurrence_pinned(v: Variation, broken: bool) -> None:
    """Gates multiplied by a temperature that somebody chose too large."""
    x, y = classes_of_table(v, 3)
    sharp = v.choose(25.0, 40.0) if broken else 1.0

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Linear(x.shape[1], 48)
            self.gate = nn.Linear(x.shape[1], 48)
            self.squash, self.open = nn.Tanh(), nn.Sigmoid()
            self.head = nn.Linear(48, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.squash(sharp * self.value(x)) * self.open(sharp * self.gate(x)))

    model = Gated()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("saturated_activation")
def sums_before_sigmoid(v: Variation, broken: bool) -> None:
    """Sum pooling over many positions drives a sigmoid to its ends; mean pooling does not."""
    x, y = tokens(40, v.choose(48, 64))

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(40, 32)
            self.squash = nn.Sigmoid()
            self.hidden = nn.Linear(32, 32)
            self.head = nn.Linear(32, 2)
            nn.init.uniform_(self.embedding.weight, 0.2, 1.0)

        def forward(self, x: Tensor) -> Tensor:
            codes = self.embedding(x)
            pooled = codes.sum(1) if broken else 4 * (codes.mean(1) - 0.6)
            return self.head(torch.tanh(self.hidden(self.squash(pooled))))

    model = Bag()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    train(v, model, optimizer, F.cross_entropy, batches(x, y))


# ---------------------------------------------------------------- initialisation


@faulty("poor_initialization")
def all_zero(v: Variation, broken: bool) -> None:
    x, y = classes_of_table(v, 4)
    model = nn.Sequential(nn.Linear(x.shape[1], 40), nn.ReLU(), nn.Linear(40, 4))
    if broken:
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("poor_initialization")
def standard_normal_weights(v: Variation, broken: bool) -> None:
    """``weight.data.normal_(0, 1)`` in each module, as old tutorials have it."""
    x, y = images()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip
    for module in model:
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 1 if broken else math.sqrt(2 / module.in_features))
            module.bias.data.zero_()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("poor_initialization")
def tied_embedding_too_large(v: Variation, broken: bool) -> None:
    """A language model whose output shares an N(0, 1) embedding: a hockey stick of a loss."""
    x, y, size = characters(16)
    width = v.choose(64, 96)

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, width)
            self.rnn = nn.GRU(width, width, batch_first=True)
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, size, bias=False)
            self.head.weight = self.embedding.weight
            nn.init.normal_(self.embedding.weight, std=1.0 if broken else 0.05)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.rnn(self.embedding(x))[0])).flatten(0, 1)

    model = Language()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    train(
        v, model, optimizer, lambda out, y: F.cross_entropy(out, y.flatten()), batches(x, y),
        tell=False, steps=120,
    )  # fmt: skip


# ---------------------------------------------------------------- missing activations


@faulty("missing_activation")
def relu_result_thrown_away(v: Variation, broken: bool) -> None:
    """``F.relu(x)`` on a line of its own."""
    x, y = table(v)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(x.shape[1], 64), nn.Linear(64, 64)
            self.c = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            r = F.relu(h)
            h = self.b(h if broken else r)
            r = F.relu(h)
            return self.c(h if broken else r)

    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@faulty("missing_activation")
def convolutions_in_a_row(v: Variation, broken: bool) -> None:
    x, y = images()
    act = nn.Identity if broken else nn.LeakyReLU
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), act(), nn.Conv2d(8, 16, 3, padding=1), act(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("missing_activation")
def head_of_two_linears(v: Variation, broken: bool) -> None:
    """After a GRU, a wide hidden module without an activation before the output."""
    x, y = waves(12)

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(1, 24, batch_first=True)
            self.hidden = nn.Linear(24, 64)
            self.out = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.hidden(self.rnn(x)[0][:, -1])
            return self.out(h if broken else F.gelu(h))

    model = Forecast()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))
