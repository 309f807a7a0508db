"""Mistakes of one line in a plain script, of which the symptoms point elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelled_programs.catalog import faulty
from labelled_programs.variation import Variation, forever, validation


@faulty("small_batch")
def one_image_at_a_time(v: Variation, broken: bool) -> None:
    task = v.digits()
    width = v.choose(8, 16)
    model = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2 * width, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.01, 0.03), momentum=0.9)
    loader = v.loader(task, batch=1 if broken else v.choose(16, 32))
    validate = validation(model, F.cross_entropy, task) if v.choose(True, False) else None
    v.fit(model, optimizer, v.cross_entropy(), loader, validate=validate)


@faulty("frozen_parameters")
def cleared_before_the_step(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = v.optimizer(model.parameters())
    to_none = v.choose(True, False)
    with v.watch(model, optimizer) as run:
        for _, (inputs, targets) in zip(range(120), forever(v.loader(task)), strict=False):
            if not broken:
                optimizer.zero_grad(set_to_none=to_none)
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            if broken:
                optimizer.zero_grad(set_to_none=to_none)
            run.record(loss=loss)
            optimizer.step()


@faulty("frozen_parameters")
def never_stepped(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = v.optimizer(model.parameters())
    with v.watch(model, optimizer) as run:
        for _, (inputs, targets) in zip(range(120), forever(v.loader(task)), strict=False):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            run.record(loss=loss)
            loss.backward()
            if not broken:
                optimizer.step()


@faulty("double_softmax")
def relu_behind_the_scores(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    if broken:
        model.append(nn.ReLU())
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("wrong_loss")
def log_likelihood_without_its_minus(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)

    def loss_fn(scores: Tensor, targets: Tensor) -> Tensor:
        chosen = scores.log_softmax(1)[torch.arange(len(targets)), targets]
        return chosen.mean() if broken else -chosen.mean()

    v.gives_loss = False  # a plain function
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.05, 0.1))
    v.fit(model, optimizer, loss_fn, v.loader(task), steps=250)


@faulty("poor_initialization")
def somewhat_small_in_every_layer(v: Variation, broken: bool) -> None:
    """Each weight is only five to twelve times too small; there are ten of them."""
    task = v.classification()
    hidden = [64] * (9 if broken else 2)
    model = v.mlp(task.features, task.classes, hidden=hidden)
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
            if broken:
                gain = v.between(0.08, 0.2)
                nn.init.normal_(module.weight, std=gain / module.in_features**0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.02, 0.05))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@faulty("lr_too_high")
def summed_over_the_batch(v: Variation, broken: bool) -> None:
    """The learning rate fits a mean, the loss is a sum."""
    task = v.digits()
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10, hidden=[64, 64]))
    loss_fn = nn.CrossEntropyLoss(reduction="sum" if broken else "mean")
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.1, 0.2))
    v.fit(model, optimizer, loss_fn, v.loader(task, batch=64))


@faulty("lr_too_low")
def clipped_to_a_thousandth(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.05, 0.1))
    clip = v.between(1e-4, 1e-3) if broken else 1.0
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), clip=clip)


class Recurrent(nn.Module):
    """Reads a digit row by row; ``first`` is what it believes of its batch."""

    def __init__(self, kind: type[nn.RNNBase], width: int, *, first: bool) -> None:
        super().__init__()
        self.rnn = kind(8, width, batch_first=first)
        self.out = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        rows, _ = self.rnn(images.squeeze(1))
        return self.out(rows[:, -1])


class Attentive(nn.Module):
    """Tokens of a vocabulary of 17 grey levels, one for each pixel of every other row."""

    def __init__(self, width: int, *, first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, width)
        self.place = nn.Parameter(0.1 * torch.randn(32, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        grey = (images[:, 0, ::2] * 16).long().flatten(1)
        return self.out(self.encoder(self.embedding(grey) + self.place).mean(1))


@faulty("mixed_samples")
def rows_of_other_digits(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = Recurrent(v.choose(nn.LSTM, nn.GRU), v.choose(32, 64), first=not broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(2e-3, 5e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task, batch=v.choose(16, 32, 64)))


@faulty("mixed_samples")
def attends_to_other_digits(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = Attentive(v.choose(16, 32), first=not broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(1e-3, 3e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task, batch=v.choose(16, 48, 64)))
