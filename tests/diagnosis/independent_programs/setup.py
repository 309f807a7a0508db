"""Faults in what is trained, and in which mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from labelled_programs.variation import Variation
from torch import Tensor, nn

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
    waves,
)

# ---------------------------------------------------------------- not trained


@faulty("frozen_parameters")
def python_list_of_modules(v: Variation, broken: bool) -> None:
    """``self.layers = [nn.Linear(...)]``: the optimizer never hears of them."""
    x, y = classes_of_table(v, 4)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(x.shape[1], 48)
            inner = [nn.Linear(48, 48) for _ in range(3)]
            self.layers = inner if broken else nn.ModuleList(inner)
            self.head = nn.Linear(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.stem(x))
            for layer in self.layers:
                h = F.relu(layer(h))
            return self.head(h)

    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("frozen_parameters")
def a_fresh_module_each_forward(v: Variation, broken: bool) -> None:
    """nn.Linear is created inside forward(): random again at each step."""
    x, y = table(v)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(x.shape[1], 32), nn.Linear(32, 1)
            self.middle = None if broken else nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            middle = self.middle or nn.Linear(32, 32)
            return self.out(F.relu(middle(F.relu(self.into(x)))))

    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@faulty("frozen_parameters")
def output_through_numpy(v: Variation, broken: bool) -> None:
    """The features pass through numpy() in the middle of the model."""
    x, y = images()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(432, 10)

        def forward(self, x: Tensor) -> Tensor:
            h = self.features(x)
            return self.head(torch.from_numpy(h.detach().numpy()) if broken else h)

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("frozen_parameters")
def optimizer_of_the_decoder_only(v: Variation, broken: bool) -> None:
    """An encoder and a decoder; torch.optim.Adam(decoder.parameters())."""
    x, y = waves(16)

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.GRU(1, 24, batch_first=True)
            self.decoder = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(x)[0][:, -1])

    model = Pair()
    trained = model.decoder if broken else model
    optimizer = torch.optim.Adam(trained.parameters(), lr=3e-3)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@faulty("frozen_parameters")
def new_weight_after_the_optimizer(v: Variation, broken: bool) -> None:
    """The embedding is exchanged for a larger one after the optimizer was made."""
    x, y = tokens(40, 12)
    model = nn.Sequential(nn.EmbeddingBag(40, 24), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
    if broken:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        model[0] = nn.EmbeddingBag(40, 24)
    else:
        model[0] = nn.EmbeddingBag(40, 24)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("frozen_parameters")
def cleared_before_the_step(v: Variation, broken: bool) -> None:
    """backward(), zero_grad(), step(): no parameter has a gradient when the step comes."""
    x, y = classes_of_table(v, 3)
    model = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x, y))):
            if step == 140:
                break
            loss = F.cross_entropy(model(a), b)
            run.record(loss=loss)
            if not broken:
                optimizer.zero_grad()
            loss.backward()
            if broken:
                optimizer.zero_grad()
            optimizer.step()


# ---------------------------------------------------------------- mode


def _convnet(drop: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Dropout(drop),
        nn.Linear(432, 10),
    )  # fmt: skip


@faulty("mode_mistake")
def eval_before_the_loop(v: Variation, broken: bool) -> None:
    """The checkpoint was loaded with .eval() and nobody called train()."""
    x, y = images()
    model = _convnet(0.3)
    if broken:
        model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("mode_mistake")
def validation_with_dropout(v: Variation, broken: bool) -> None:
    """Validation under no_grad() but without eval(): dropout and batch statistics are on."""
    x, y = images()
    model = _convnet(0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = batches(x[:1400], y[:1400])
    with v.watch(model, optimizer, loader=loader) as run:
        for step, (a, b) in enumerate(endless(loader)):
            if step == 132:
                break
            optimizer.zero_grad()
            loss = F.cross_entropy(model(a), b)
            run.record(loss=loss)
            loss.backward()
            optimizer.step()
            if step % 44 == 43:
                if not broken:
                    model.eval()
                with torch.no_grad():
                    out = model(x[1400:])
                run.validation(
                    val_loss=F.cross_entropy(out, y[1400:]), val_accuracy=accuracy(out, y[1400:])
                )
                model.train()


@faulty("mode_mistake")
def train_only_before_the_first_epoch(v: Variation, broken: bool) -> None:
    """model.train() once, then eval() at the end of each epoch's validation."""
    x, y = tokens(30, 12)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(30, 32)
            self.rnn = nn.GRU(32, 32, batch_first=True)
            self.drop = nn.Dropout(0.4)
            self.head = nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.rnn(self.embedding(x))[0].mean(1)))

    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = batches(x[:640], y[:640])
    with v.watch(model, optimizer) as run:
        model.train()
        for _epoch in range(7):
            if not broken:
                model.train()
            for a, b in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(a), b)
                run.record(loss=loss)
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                out = model(x[640:])
                run.validation(val_loss=F.cross_entropy(out, y[640:]))
