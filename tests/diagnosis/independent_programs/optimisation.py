"""Learning rates and gradients that are not cleared."""

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
    endless,
    images,
    table,
    tokens,
    train,
    waves,
)


@faulty("lr_too_high")
def adam_at_a_tenth_on_a_transformer(v: Variation, broken: bool) -> None:
    x, y = tokens(24, 12)
    width = 32

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(24, width)
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.norm = nn.LayerNorm(width)
            self.body = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
            self.head = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embedding(x)
            h = self.norm(h + self.attention(h, h, h, need_weights=False)[0])
            return self.head((h + self.body(h)).mean(1))

    model = Encoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.choose(0.3, 0.5) if broken else 1e-3)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=150)


@faulty("lr_too_high")
def momentum_and_one(v: Variation, broken: bool) -> None:
    """SGD with lr 1 and momentum 0.9 on a convolutional network."""
    x, y = images()
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(108, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    lr = v.choose(1.0, 2.0) if broken else 0.03
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("lr_too_high")
def regression_diverges(v: Variation, broken: bool) -> None:
    """Plain gradient descent past 2/λ: the loss doubles from step to step until it overflows."""
    x, y = table(v)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=v.choose(2.0, 4.0) if broken else 0.05)
    train(v, model, optimizer, nn.MSELoss(), batches(x, y))


@faulty("lr_too_high")
def rmsprop_on_a_gru(v: Variation, broken: bool) -> None:
    x, y = waves(16)

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(1, 32, batch_first=True)
            self.out = nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    model = Forecast()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=v.choose(0.3, 0.6) if broken else 2e-3)
    train(v, model, optimizer, F.mse_loss, batches(x, y))


@faulty("lr_too_low")
def a_millionth(v: Variation, broken: bool) -> None:
    x, y = images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    lr = v.choose(1e-6, 1e-5) if broken else 0.1
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y))


@faulty("lr_too_low")
def decayed_every_step(v: Variation, broken: bool) -> None:
    """scheduler.step() inside the batch loop: a decay meant for epochs has ended learning."""
    x, y, size = characters(12)

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, 24)
            self.rnn = nn.GRU(24, 48, batch_first=True)
            self.head = nn.Linear(48, size)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.embedding(x))[0]).transpose(1, 2)

    model = Language()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7 if broken else 0.999)
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), steps=160, scheduler=scheduler)


@faulty("lr_too_low")
def warm_up_by_integer_division(v: Variation, broken: bool) -> None:
    """``step // warmup`` is zero all through the warm-up (a millionth is added 'to be safe')."""
    x, y = classes_of_table(v, 5)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.GELU(), nn.Linear(64, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: 1e-6 + (step // 1000 if broken else min(1.0, (step + 1) / 40)),
    )
    train(v, model, optimizer, nn.CrossEntropyLoss(), batches(x, y), scheduler=scheduler)


@faulty("missing_zero_grad")
def never_zeroed_convnet(v: Variation, broken: bool) -> None:
    x, y = images()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.01, 0.05))
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x, y))):
            if step == 150:
                break
            loss = F.cross_entropy(model(a), b)
            loss.backward()
            optimizer.step()
            if not broken:
                model.zero_grad()
            run.record(loss=loss.detach())


@faulty("missing_zero_grad")
def zeroed_once_an_epoch(v: Variation, broken: bool) -> None:
    """optimizer.zero_grad() stands before the inner loop instead of in it."""
    x, y = table(v)
    model = nn.Sequential(nn.Linear(x.shape[1], 40), nn.ReLU(), nn.Linear(40, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loader = batches(x, y)
    with v.watch(model, optimizer, loss_fn=nn.MSELoss(), loader=loader) as run:
        for _epoch in range(5):
            optimizer.zero_grad()
            for a, b in loader:
                if not broken:
                    optimizer.zero_grad()
                loss = F.mse_loss(model(a), b)
                run.record(loss=loss)
                loss.backward()
                optimizer.step()


@faulty("missing_zero_grad")
def the_other_model_is_cleared(v: Variation, broken: bool) -> None:
    """``net.zero_grad()`` is called on a copy, as happens in notebooks."""
    x, y = tokens(30, 12)
    embedding = nn.EmbeddingBag(30, 24)
    model = nn.Sequential(embedding, nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
    other = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with v.watch(model, optimizer) as run:
        for step, (a, b) in enumerate(endless(batches(x, y))):
            if step == 140:
                break
            (other if broken else model).zero_grad()
            loss = F.cross_entropy(model(a), b)
            run.record(loss=loss)
            loss.backward()
            optimizer.step()
