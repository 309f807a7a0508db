"""Unusual training that is fine: optimizers, schedules, data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from labelled_programs.variation import Variation
from torch import Tensor, nn

from independent_programs.catalog import healthy
from independent_programs.material import (
    accuracy,
    batches,
    characters,
    classes_of_table,
    endless,
    images,
    table,
    tokens,
    train,
)


def _mlp(features: int, outputs: int, width: int = 48) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def _convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(432, 10)
    )


@healthy
def warm_restarts(v: Variation) -> None:
    """Cosine annealing to almost zero and back, every forty steps."""
    x, y = images()
    model = _convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 40)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), scheduler=scheduler)


@healthy
def one_cycle(v: Variation) -> None:
    x, y = images()
    model = _convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=170)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), scheduler=scheduler)


@healthy
def two_samples_a_batch(v: Variation) -> None:
    x, y = classes_of_table(v, 3)
    model = _mlp(x.shape[1], 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y, size=2), steps=250)


@healthy
def one_sample_a_batch(v: Variation) -> None:
    """Stochastic gradient descent to the letter."""
    x, y = table(v)
    model = _mlp(x.shape[1], 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y, size=1), steps=300)


@healthy
def heavy_weight_decay(v: Variation) -> None:
    x, y = classes_of_table(v, 4)
    model = _mlp(x.shape[1], 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1.0)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def rates_by_group(v: Variation) -> None:
    """A tiny rate for the body, a usual one for the head, as in fine-tuning."""
    x, y = images()
    model = _convnet()
    optimizer = torch.optim.AdamW(
        [
            {"params": model[:3].parameters(), "lr": 1e-5},
            {"params": model[4].parameters(), "lr": 3e-3},
        ]
    )
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def eight_batches_a_step(v: Variation) -> None:
    x, y = images()
    model = _convnet()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    with v.watch(model, optimizer) as run:
        for index, (a, b) in enumerate(endless(batches(x, y, size=8))):
            if index == 8 * 90:
                break
            loss = F.cross_entropy(model(a), b) / 8
            loss.backward()
            if index % 8 == 7:
                run.record(loss=8 * loss.detach())
                optimizer.step()
                optimizer.zero_grad()


@healthy
def a_third_of_the_labels_is_wrong(v: Variation) -> None:
    """Label noise: harder, but the labels belong to the inputs."""
    x, y = classes_of_table(v, 4)
    noisy = torch.where(torch.rand(len(y)) < 0.3, torch.randint(4, (len(y),)), y)
    model = _mlp(x.shape[1], 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, noisy))


@healthy
def twelve_samples_by_heart(v: Variation) -> None:
    """Karpathy's test: overfit one small batch, without validation."""
    x, y = images()
    model = nn.Sequential(nn.Flatten(), *_mlp(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), [(x[:12], y[:12])], tell=False)


@healthy
def mixup(v: Variation) -> None:
    """Targets are mixtures of two classes."""
    x, y = images()
    model = _convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x, y))):
            if step == 150:
                break
            share = float(torch.distributions.Beta(0.4, 0.4).sample())
            other = torch.randperm(len(a))
            soft = F.one_hot(b, 10).float()
            optimizer.zero_grad()
            out = model(share * a + (1 - share) * a[other])
            loss = F.cross_entropy(out, share * soft + (1 - share) * soft[other])
            run.record(loss=loss)
            loss.backward()
            optimizer.step()


@healthy
def weighted_rare_class(v: Variation) -> None:
    """Nine to one, with the classes weighted against it."""
    x, y = classes_of_table(v, 2, samples=2400)
    keep = (y == 0) | (torch.rand(len(y)) < 0.12)
    x, y = x[keep], y[keep]
    model = _mlp(x.shape[1], 2)
    weight = 1 / torch.bincount(y).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(weight=weight / weight.sum() * 2), batches(x, y))


@healthy
def lbfgs_full_batch(v: Variation) -> None:
    x, y = table(v, samples=300)
    model = nn.Sequential(nn.Linear(x.shape[1], 24), nn.Tanh(), nn.Linear(24, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    with v.watch(model, optimizer) as run:
        for _ in range(40):

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                return loss

            run.record(loss=optimizer.step(closure).detach())


@healthy
def adagrad_on_sparse_embedding(v: Variation) -> None:
    x, y = tokens(400, 10)
    model = nn.Sequential(nn.EmbeddingBag(400, 24, sparse=True), nn.Linear(24, 2))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@healthy
def rate_divided_twice(v: Variation) -> None:
    """Nesterov momentum; the rate falls to a tenth and to a hundredth."""
    x, y = images()
    model = _convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 120], 0.1)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), scheduler=scheduler)


@healthy
def clipped_hard(v: Variation) -> None:
    """Every gradient is clipped to a norm of 0.1 while the rate is large."""
    x, y, size = characters(16)

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, 32)
            self.rnn = nn.LSTM(32, 64, num_layers=2, batch_first=True)
            self.head = nn.Linear(64, size)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.embedding(x))[0]).transpose(1, 2)

    model = Language()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), clip=0.25, steps=120)


@healthy
def small_table_with_validation(v: Variation) -> None:
    """A hundred and fifty rows, validated often, stopped before it overfits."""
    x, y = classes_of_table(v, 3, samples=250)
    model = nn.Sequential(nn.Linear(x.shape[1], 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-3)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x[:170], y[:170]))):
            if step == 90:
                break
            model.train()
            optimizer.zero_grad()
            out = model(a)
            loss = F.cross_entropy(out, b)
            run.record(loss=loss, accuracy=accuracy(out, b))
            loss.backward()
            optimizer.step()
            if step % 10 == 9:
                model.eval()
                with torch.no_grad():
                    out = model(x[170:])
                run.validation(
                    val_loss=F.cross_entropy(out, y[170:]), val_accuracy=accuracy(out, y[170:])
                )
