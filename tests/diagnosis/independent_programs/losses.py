"""Faults between the outputs and the loss."""

from __future__ import annotations

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
)


class _Transformer(nn.Module):
    """Two small blocks over tokens, mean-pooled."""

    def __init__(self, vocabulary: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        block = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(x)).mean(1))


# ---------------------------------------------------------------- softmax before the loss


@faulty("double_softmax")
def transformer_returns_probabilities(v: Variation, broken: bool) -> None:
    x, y = tokens(30, 16)
    inner = _Transformer(30, 2)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            out = self.inner(x)
            return F.softmax(out, dim=-1) if broken else out

    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=120)


@faulty("double_softmax")
def sigmoid_and_with_logits(v: Variation, broken: bool) -> None:
    """BCEWithLogitsLoss on a model that ends in a sigmoid."""
    x, labels = classes_of_table(v, 2)
    y = labels.float().unsqueeze(1)
    parts = [nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1)]
    model = nn.Sequential(*parts, *([nn.Sigmoid()] if broken else []))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.BCEWithLogitsLoss(), batches(x, y))


@faulty("double_softmax")
def log_softmax_of_softmax(v: Variation, broken: bool) -> None:
    """Softmax in the model, log_softmax in the loop, NLL as the loss."""
    x, y = images()
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 10))
    if broken:
        model.append(nn.Softmax(dim=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(
        v, model, optimizer, lambda out, y: F.nll_loss(F.log_softmax(out, 1), y), batches(x, y),
        tell=False,
    )  # fmt: skip


# ---------------------------------------------------------------- a loss that does not fit


@faulty("wrong_loss")
def nll_of_logits(v: Variation, broken: bool) -> None:
    """NLLLoss without log_softmax: the loss falls below zero and goes on falling."""
    x, y = tokens(30, 12)
    inner = _Transformer(30, 2)
    model = nn.Sequential(inner) if broken else nn.Sequential(inner, nn.LogSoftmax(dim=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.NLLLoss(), batches(x, y), steps=120)


@faulty("wrong_loss")
def squared_error_on_class_numbers(v: Variation, broken: bool) -> None:
    """Ten classes as one number between 0 and 9, regressed."""
    x, y = images()
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 1 if broken else 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if broken:
        criterion, targets = nn.MSELoss(), y.float().unsqueeze(1)
    else:
        criterion, targets = nn.CrossEntropyLoss(), y
    train(v, model, optimizer, criterion, batches(x, targets))


@faulty("wrong_loss")
def minus_one_and_one_into_bce(v: Variation, broken: bool) -> None:
    """Targets -1 and +1, as for a hinge loss, given to the binary cross-entropy."""
    x, labels = classes_of_table(v, 2)
    y = labels.float().unsqueeze(1)
    if broken:
        y = 2 * y - 1
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train(v, model, optimizer, nn.BCEWithLogitsLoss(), batches(x, y))


@faulty("wrong_loss")
def sign_of_the_loss(v: Variation, broken: bool) -> None:
    """Someone maximises the likelihood by minimising its positive."""
    x, y = table(v)
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.SiLU(), nn.Linear(48, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sign = -1.0 if broken else 1.0
    train(v, model, optimizer, lambda out, y: sign * F.mse_loss(out, y), batches(x, y), tell=False)


@faulty("wrong_loss")
def cross_entropy_of_one_column(v: Variation, broken: bool) -> None:
    """Binary task, one output, cross-entropy: the loss is zero from the start."""
    x, y = classes_of_table(v, 2)
    if broken:
        y = torch.zeros_like(y)
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1 if broken else 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("wrong_loss")
def divergence_of_probabilities(v: Variation, broken: bool) -> None:
    """kl_div expects log-probabilities as its first argument and got probabilities."""
    x, y = classes_of_table(v, 4)
    soft = 0.9 * F.one_hot(y, 4).float() + 0.025
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 4))
    model.append(nn.Softmax(dim=1) if broken else nn.LogSoftmax(dim=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.KLDivLoss(reduction="batchmean"), batches(x, soft))


# ---------------------------------------------------------------- labels


@faulty("label_mismatch")
def squeezed_on_one_side(v: Variation, broken: bool) -> None:
    """[N, 1] against [N]: broadcast to [N, N], every prediction becomes the mean."""
    x, y = table(v)
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y.squeeze(1) if broken else y))


@faulty("label_mismatch")
def inputs_shuffled_alone(v: Variation, broken: bool) -> None:
    """The inputs were shuffled with one permutation, the labels with another."""
    x, y = classes_of_table(v, 4)
    order = torch.randperm(len(x))
    x, y = x[order], y[torch.randperm(len(y)) if broken else order]
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=220, tell=True)


@faulty("label_mismatch")
def tanh_output_for_large_targets(v: Variation, broken: bool) -> None:
    """Targets of size five behind an output that ends at one."""
    x, y = table(v)
    model = nn.Sequential(
        nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 1),
        *([nn.Tanh()] if broken else []),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(v, model, optimizer, nn.MSELoss(), batches(x, 5 * y))


@faulty("label_mismatch")
def relu_output_for_signed_targets(v: Variation, broken: bool) -> None:
    """A ReLU after the last module of a regression: negative targets cannot be reached."""
    x, y = table(v)
    model = nn.Sequential(
        nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 1), *([nn.ReLU()] if broken else [])
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@faulty("label_mismatch")
def characters_of_another_text(v: Variation, broken: bool) -> None:
    """Next-character targets cut from the text at other places than the inputs."""
    x, y, size = characters(12)
    if broken:
        y = y[torch.randperm(len(y))]

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, 32)
            self.rnn = nn.LSTM(32, 64, batch_first=True)
            self.head = nn.Linear(64, size)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.embedding(x))[0]).transpose(1, 2)

    model = Language()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), tell=True)
