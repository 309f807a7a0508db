"""Data that the programs share, and the shortest usual loop."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from labelled_programs.variation import Variation
from sklearn import datasets
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

with contextlib.redirect_stdout(io.StringIO()):
    import this

TEXT = "".join(this.d.get(c, c) for c in this.s)


def images(*, side: int = 8) -> tuple[Tensor, Tensor]:
    """Digits as one-channel images, about zero mean and unit size."""
    x, y = datasets.load_digits(return_X_y=True)
    inputs = (torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) - 4.9) / 6.0
    if side != 8:
        inputs = nn.functional.interpolate(inputs, size=side)
    order = torch.randperm(len(inputs))
    return inputs[order], torch.tensor(y)[order]


def table(v: Variation, samples: int = 1000, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Standard normal features, a smooth target of unit size: [N, F], [N, 1]."""
    features = v.choose(6, 10, 16)
    inputs = torch.randn(samples, features)
    direction = torch.randn(features, 3) / features**0.5
    target = torch.sin(2 * inputs @ direction).sum(1, keepdim=True)
    target = target + noise * torch.randn(samples, 1)
    return inputs, (target - target.mean()) / target.std()


def classes_of_table(v: Variation, classes: int, samples: int = 1200) -> tuple[Tensor, Tensor]:
    """Gaussian clusters, standardised: [N, F], [N]."""
    features = v.choose(8, 12, 24)
    centres = 1.2 * torch.randn(classes, features)
    targets = torch.randint(classes, (samples,))
    inputs = centres[targets] + torch.randn(samples, features)
    return (inputs - inputs.mean(0)) / inputs.std(0), targets


def tokens(vocabulary: int, length: int, samples: int = 800) -> tuple[Tensor, Tensor]:
    """Random tokens; the class says whether small ones are in the majority."""
    inputs = torch.randint(vocabulary, (samples, length))
    return inputs, ((inputs < vocabulary // 2).float().mean(1) > 0.5).long()


def characters(length: int) -> tuple[Tensor, Tensor, int]:
    """Windows of a text and the same windows one character later."""
    alphabet = sorted(set(TEXT))
    codes = torch.tensor([alphabet.index(c) for c in TEXT])
    windows = codes.unfold(0, length + 1, 1)
    windows = windows[torch.randperm(len(windows))]
    return windows[:, :-1], windows[:, 1:], len(alphabet)


def waves(length: int, samples: int = 600) -> tuple[Tensor, Tensor]:
    """Noisy sines and their next value: [N, T, 1], [N, 1]."""
    phase, speed = 6.28 * torch.rand(samples, 1), 0.2 + 0.3 * torch.rand(samples, 1)
    time = torch.arange(length + 1)
    curve = torch.sin(phase + speed * time) + 0.05 * torch.randn(samples, length + 1)
    return curve[:, :-1, None], curve[:, -1:]


def batches(
    inputs: Any, targets: Any = None, *, size: int = 32, shuffle: bool = True
) -> DataLoader[Any]:
    """A loader over tensors, or over a data set of one's own."""
    data = inputs if isinstance(inputs, Dataset) else TensorDataset(inputs, targets)
    return DataLoader(data, size, shuffle=shuffle)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(-1) == targets).float().mean())


def train(
    v: Variation,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[..., Tensor],
    loader: Iterable[Any],
    *,
    steps: int = 160,
    scheduler: Any = None,
    clip: float = 0.0,
    tell: bool | None = None,
) -> None:
    """zero_grad, forward, loss, backward, step; ``tell`` watch() the loss and the loader."""
    told = v.choose(True, False) if tell is None else tell
    known = {"loss_fn": criterion, "loader": loader} if told else {}
    with v.watch(model, optimizer, **known) as run:
        for step, (inputs, targets) in enumerate(endless(loader)):
            if step == steps:
                return
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            run.record(loss=loss)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
