"""Faults in data."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from labelled_programs.variation import Variation
from sklearn import datasets
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from independent_programs.catalog import faulty
from independent_programs.material import (
    accuracy,
    batches,
    classes_of_table,
    endless,
    images,
    table,
    tokens,
    train,
)

# ---------------------------------------------------------------- scale of the inputs


@faulty("unnormalized_input")
def grey_levels_as_they_are(v: Variation, broken: bool) -> None:
    """Images from 0 to 255 in a convolutional autoencoder."""
    x, _ = images()
    x = (x * 6 + 4.9).clamp(0, 16) / 16
    factor = 255.0 if broken else 1.0
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1),
        nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 3, padding=1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(factor * x, x))


@faulty("unnormalized_input")
def salary_beside_age(v: Variation, broken: bool) -> None:
    """Tabular features in their own units, three of them thousands of times the others."""
    x, y = table(v)
    scale = torch.ones(x.shape[1])
    scale[:3] = torch.tensor([3e4, 1e3, 1e5]) if broken else 1.0
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.SmoothL1Loss(), batches(x * scale, y))


@faulty("unnormalized_input")
def divided_twice(v: Variation, broken: bool) -> None:
    """ToTensor() has scaled already; someone divides by 255 again."""
    x, y = images()
    x = (x * 6 + 4.9).clamp(0, 16) / 16
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x / (255 if broken else 1), y))


@faulty("unnormalized_input")
def seconds_since_1970(v: Variation, broken: bool) -> None:
    """A recurrent forecaster that gets the time stamp as one of its features."""
    length = 14
    steps = torch.arange(length).float() + 100 * torch.rand(500, 1)
    series = torch.sin(0.4 * steps)
    stamp = 1.6e9 + 3600 * steps if broken else (steps - 57) / 30
    x = torch.stack([series, stamp], 2)
    y = torch.sin(0.4 * (steps[:, -1:] + 1))

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(2, 32, batch_first=True)
            self.out = nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    model = Forecast()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


# ---------------------------------------------------------------- classes and order


@faulty("class_imbalance")
def fraud(v: Variation, broken: bool) -> None:
    """One to two percent positives, one output, no weights."""
    share = v.choose(0.01, 0.02) if broken else 0.45
    y = (torch.rand(1600, 1) < share).float()
    x = torch.randn(1600, 14) + y * torch.randn(14)
    model = nn.Sequential(nn.Linear(14, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.BCEWithLogitsLoss(), batches(x, y, size=64))


@faulty("class_imbalance")
def nearly_everything_is_background(v: Variation, broken: bool) -> None:
    """Per-pixel classes: 96 % of the pixels are background."""
    x = 0.5 * torch.randn(400, 1, 12, 12)
    y = torch.zeros(400, 12, 12, dtype=torch.long)
    side = 3 if broken else 8
    for i in range(len(x)):
        r, c = int(torch.randint(12 - side, ())), int(torch.randint(12 - side, ()))
        y[i, r : r + side, c : c + side] = 1
        x[i, 0, r : r + side, c : c + side] += 1.5
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 2, 3, padding=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y, size=16))


@faulty("class_imbalance")
def long_tail_of_words(v: Variation, broken: bool) -> None:
    x, y = tokens(30, 12, samples=1400)
    if broken:
        keep = (y == 1) | (torch.rand(len(y)) < 0.03)
        x, y = x[keep], y[keep]
    model = nn.Sequential(nn.EmbeddingBag(30, 24), nn.ReLU(), nn.Linear(24, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(v, model, optimizer, F.cross_entropy, batches(x, y, size=64))


class _Files(IterableDataset[tuple[Tensor, Tensor]]):
    """Streams one file after another; each holds one class when it was written so."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.x, self.y, strict=True)


@faulty("no_shuffle")
def one_file_per_class(v: Variation, broken: bool) -> None:
    x, y = classes_of_table(v, 4)
    order = torch.argsort(y) if broken else torch.randperm(len(y))
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = torch.utils.data.DataLoader(_Files(x[order], y[order]), 32)
    train(v, model, optimizer, nn.CrossEntropyLoss(), loader)


@faulty("no_shuffle")
def folder_by_folder(v: Variation, broken: bool) -> None:
    """An image folder, listed class by class and loaded with shuffle=False."""
    x, y = images()
    order = torch.argsort(y, stable=True)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    loader = batches(x[order], y[order], shuffle=not broken)
    train(v, model, optimizer, nn.CrossEntropyLoss(), loader)


@faulty("no_shuffle")
def sorted_by_the_target(v: Variation, broken: bool) -> None:
    """A regression table that was sorted by its target."""
    x, y = table(v)
    order = torch.argsort(y[:, 0])
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    train(v, model, optimizer, nn.MSELoss(), batches(x[order], y[order], shuffle=not broken))


# ---------------------------------------------------------------- overfitting


@faulty("overfitting")
def wide_net_on_noisy_table(v: Variation, broken: bool) -> None:
    """Sixty noisy samples and fifty thousand weights; the twin has two thousand samples."""
    x, y = table(v, samples=2600, noise=0.8)
    cut = 60 if broken else 2000
    width = 256 if broken else 32
    model = nn.Sequential(
        nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = 300 if broken else 120
    with v.watch(model, optimizer, loss_fn=nn.MSELoss()) as run:
        for step, (a, b) in enumerate(endless(batches(x[:cut], y[:cut]))):
            if step == steps:
                break
            optimizer.zero_grad()
            loss = F.mse_loss(model(a), b)
            run.record(loss=loss)
            loss.backward()
            optimizer.step()
            if step % 20 == 19:
                model.eval()
                with torch.no_grad():
                    run.validation(val_loss=F.mse_loss(model(x[2000:]), y[2000:]))
                model.train()


@faulty("overfitting")
def eighty_images(v: Variation, broken: bool) -> None:
    x, y = images()
    x = x + 1.2 * torch.randn_like(x)
    held = slice(1400, None)
    x_train, y_train = (x[:80], y[:80]) if broken else (x[:1400], y[:1400])
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Flatten(),
        *([] if broken else [nn.Dropout(0.5)]), nn.Linear(24 * 36, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x_train, y_train))):
            if step == (240 if broken else 100):
                break
            model.train()
            optimizer.zero_grad()
            out = model(a)
            loss = F.cross_entropy(out, b)
            run.record(loss=loss, accuracy=accuracy(out, b))
            loss.backward()
            optimizer.step()
            if step % 20 == 19:
                model.eval()
                with torch.no_grad():
                    out = model(x[held])
                    run.validation(
                        val_loss=F.cross_entropy(out, y[held]), val_accuracy=accuracy(out, y[held])
                    )


@faulty("overfitting")
def memorised_reviews(v: Variation, broken: bool) -> None:
    """Random tokens with a weak signal; a GRU learns the hundred training texts by heart."""
    x, y = tokens(200, 12, samples=3200)
    flip = torch.rand(len(y)) < 0.25
    y = torch.where(flip, 1 - y, y)
    cut = 100 if broken else 2400

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(200, 48)
            self.rnn = nn.GRU(48, 64, batch_first=True)
            self.head = nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.embedding(x))[0].mean(1))

    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3 if broken else 1e-3)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x[:cut], y[:cut]))):
            if step == (220 if broken else 80):
                break
            optimizer.zero_grad()
            out = model(a)
            loss = F.cross_entropy(out, b)
            loss.backward()
            optimizer.step()
            run.record(loss=loss, accuracy=accuracy(out, b))
            if step % 20 == 19:
                with torch.no_grad():
                    model.eval()
                    held = model(x[2400:])
                    model.train()
                run.validation(
                    val_loss=F.cross_entropy(held, y[2400:]), val_accuracy=accuracy(held, y[2400:])
                )


@faulty("overfitting")
def polynomial_of_the_housing_table(v: Variation, broken: bool) -> None:
    """All pairwise products of the diabetes features, forty training samples."""
    x, y = datasets.load_diabetes(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0)
    pairs = (x[:, :, None] * x[:, None, :]).flatten(1)
    features = torch.cat([x, pairs], 1) if broken else x
    features = (features - features.mean(0)) / features.std(0)
    y = ((y - y.mean()) / y.std()).unsqueeze(1)
    order = torch.randperm(len(x))
    features, y = features[order], y[order]
    cut = 40 if broken else 330
    hidden = 64 if broken else 8
    model = nn.Sequential(nn.Linear(features.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with v.watch(model, optimizer, loss_fn=nn.MSELoss()) as run:
        for step, (a, b) in enumerate(endless(batches(features[:cut], y[:cut], size=20))):
            if step == (260 if broken else 100):
                break
            optimizer.zero_grad()
            loss = F.mse_loss(model(a), b)
            run.record(loss=loss)
            loss.backward()
            optimizer.step()
            if step % 20 == 19:
                with torch.no_grad():
                    model.eval()
                    run.validation(val_loss=F.mse_loss(model(features[330:]), y[330:]))
                    model.train()
