"""Everything that a seed decides: data, model, optimizer, batch, and how the script is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Watch = Callable[..., Any]


@dataclass
class Task:
    """Training and held-out part of a data set."""

    inputs: Tensor
    targets: Tensor
    held_inputs: Tensor
    held_targets: Tensor
    classes: int

    @property
    def features(self) -> int:
        return self.inputs[0].numel()


class Variation:
    """A seeded source of choices, and the plain loop with its variations in style."""

    def __init__(self, seed: int, watch: Watch) -> None:
        self.random = random.Random(seed)
        self.watch = watch
        self.batch = self.random.choice([16, 32, 32, 64])
        self.steps = self.random.choice([150, 200, 250])
        self.gives_loss = self.random.random() < 0.8
        self.gives_loader = self.random.random() < 0.7
        self.records_late = self.random.random() < 0.5
        self.functional = self.random.random() < 0.4
        torch.manual_seed(seed)
        np.random.seed(seed % 2**31)

    def choose(self, *options: Any) -> Any:
        return self.random.choice(options)

    def between(self, low: float, high: float) -> float:
        """Log-uniform."""
        return float(np.exp(self.random.uniform(np.log(low), np.log(high))))

    # ------------------------------------------------------------ data

    def classification(self, *, samples: int = 1200) -> Task:
        """Flat features of about unit size, two to ten classes."""
        name = self.choose("digits", "digits", "wine", "cancer", "blobs", "teacher")
        if name in ("blobs", "teacher"):
            inputs, targets = self._synthetic(name, samples)
        else:
            inputs, targets = _table(name)
            scaled = inputs / 16 if name == "digits" else _standard(inputs)
            inputs = scaled if name != "digits" or self.choose(True, False) else _standard(inputs)
        return self._split(inputs, targets[: len(inputs)], int(targets.max()) + 1)

    def _synthetic(self, name: str, samples: int) -> tuple[Tensor, Tensor]:
        classes, features = self.choose(3, 5, 8), self.choose(8, 20, 40)
        if name == "blobs":
            x, y = datasets.make_blobs(
                samples, features, centers=classes, cluster_std=4.0, random_state=self.seed()
            )
            return _standard(torch.tensor(x, dtype=torch.float32)), torch.tensor(y)
        inputs = torch.randn(samples, features)
        teacher = torch.randn(features, classes)
        return inputs, (inputs @ teacher).argmax(1)

    def digits(self) -> Task:
        """8×8 digits in [0, 1] as images of one channel."""
        inputs, targets = _table("digits")
        return self._split((inputs / 16).reshape(-1, 1, 8, 8), targets, 10)

    def regression(self, *, samples: int = 800) -> Task:
        """Standardised features and targets."""
        name = self.choose("diabetes", "friedman", "linear")
        if name == "diabetes":
            inputs, targets = _table("diabetes")
        elif name == "friedman":
            x, y = datasets.make_friedman1(samples, 10, noise=0.5, random_state=self.seed())
            inputs = torch.tensor(x, dtype=torch.float32)
            targets = torch.tensor(y, dtype=torch.float32)
        else:
            inputs = torch.randn(samples, self.choose(5, 15))
            targets = inputs @ torch.randn(inputs.shape[1]) + 0.1 * torch.randn(samples)
        targets = ((targets - targets.mean()) / targets.std()).unsqueeze(1)
        return self._split(_standard(inputs), targets, 1)

    def sequences(self, length: int, *, samples: int = 600) -> Task:
        """Noise of which the sign of the mean of the last values is the class."""
        inputs = torch.randn(samples, length, 2)
        targets = (inputs[:, -4:, 0].mean(1) > 0).long()
        return self._split(inputs, targets, 2)

    def _split(self, inputs: Tensor, targets: Tensor, classes: int) -> Task:
        order = torch.randperm(len(inputs))
        inputs, targets = inputs[order], targets[order]
        cut = int(0.75 * len(inputs))
        return Task(inputs[:cut], targets[:cut], inputs[cut:], targets[cut:], classes)

    def seed(self) -> int:
        return self.random.randrange(2**31)

    # ------------------------------------------------------------ models

    def widths(self, deepest: int = 3) -> list[int]:
        return [self.choose(32, 48, 64, 96) for _ in range(self.choose(*range(1, deepest + 1)))]

    def mlp(
        self,
        features: int,
        outputs: int,
        *,
        hidden: list[int] | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        between: Callable[[int], list[nn.Module]] = lambda _width: [],
    ) -> nn.Sequential:
        parts: list[nn.Module] = [nn.Flatten()] if self.choose(True, False) else []
        last = features
        for width in hidden or self.widths():
            parts += [nn.Linear(last, width), *between(width), activation()]
            last = width
        return nn.Sequential(*parts, nn.Linear(last, outputs))

    def convnet(self, classes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
        channels = self.choose(8, 12, 16)
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            activation(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * channels * 4, classes),
        )

    def optimizer(self, parameters: Any, *, factor: float = 1.0) -> torch.optim.Optimizer:
        """One of the usual ones with a usual learning rate, times ``factor``."""
        name = self.choose("sgd", "momentum", "adam", "adamw", "rmsprop")
        if name == "sgd":
            return torch.optim.SGD(parameters, lr=factor * self.between(0.05, 0.15))
        if name == "momentum":
            return torch.optim.SGD(parameters, lr=factor * self.between(0.01, 0.04), momentum=0.9)
        if name == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=factor * self.between(5e-4, 2e-3))
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(parameters, lr=factor * self.between(1e-3, 4e-3))

    # ------------------------------------------------------------ the loop

    def loader(self, task: Task, *, shuffle: bool = True, batch: int | None = None) -> Any:
        return DataLoader(
            TensorDataset(task.inputs, task.targets), batch or self.batch, shuffle=shuffle
        )

    def cross_entropy(self) -> Any:
        """As a module or as a function."""
        return F.cross_entropy if self.functional else nn.CrossEntropyLoss()

    def fit(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: Any,
        loader: Any,
        *,
        steps: int | None = None,
        zero_grad: bool = True,
        clip: float | None = None,
        scheduler: Any = None,
        accuracy: bool = False,
        validate: Callable[[], dict[str, float]] | None = None,
        validate_every: int = 25,
    ) -> None:
        """A training loop as people write it."""
        arguments: dict[str, Any] = {}
        if self.gives_loss:
            arguments["loss_fn"] = loss_fn
        if self.gives_loader and isinstance(loader, DataLoader):
            arguments["loader"] = loader
        with self.watch(model, optimizer, **arguments) as run:
            for step, (inputs, targets) in enumerate(forever(loader)):
                if step == (steps or self.steps):
                    break
                if zero_grad:
                    optimizer.zero_grad()
                outputs = model(inputs)
                loss = loss_fn(outputs, targets)
                scalars = {"loss": loss}
                if accuracy:
                    scalars["accuracy"] = (outputs.argmax(1) == targets).float().mean()
                if not self.records_late:
                    run.record(**scalars)
                loss.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                if self.records_late:
                    run.record(**scalars)
                if scheduler is not None:
                    scheduler.step()
                if validate is not None and step % validate_every == validate_every - 1:
                    run.validation(**validate())


def validation(
    model: nn.Module, loss_fn: Any, task: Task, *, switch: bool = True, back: bool = True
) -> Callable[[], dict[str, float]]:
    """Loss and accuracy on the held-out part; ``switch`` to eval mode and ``back``."""

    def measure() -> dict[str, float]:
        if switch:
            model.eval()
        with torch.no_grad():
            outputs = model(task.held_inputs)
            values = {"val_loss": float(loss_fn(outputs, task.held_targets))}
            if task.classes > 1:
                right = outputs.argmax(1) == task.held_targets
                values["val_accuracy"] = float(right.float().mean())
        if switch and back:
            model.train()
        return values

    return measure


def forever(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


@cache
def _table(name: str) -> tuple[Tensor, Tensor]:
    load = {
        "digits": datasets.load_digits,
        "wine": datasets.load_wine,
        "cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
    }[name]
    x, y = load(return_X_y=True)
    targets = torch.tensor(y)
    return torch.tensor(x, dtype=torch.float32), targets.float() if name == "diabetes" else targets


def _standard(inputs: Tensor) -> Tensor:
    return (inputs - inputs.mean(0)) / inputs.std(0).clamp_min(1e-3)
