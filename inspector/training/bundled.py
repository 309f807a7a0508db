"""Data that comes with scikit-learn or is made up: inputs and targets as tensors.

Each function stands alone, so that an exported script can hold it as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def digits() -> tuple[Tensor, Tensor]:
    """1,797 handwritten digits [n, 1, 8, 8] from 0 to 1, and the digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    return images, torch.tensor(bunch.target).long()


def digit_rows() -> tuple[Tensor, Tensor]:
    """The same digits as sequences of eight rows [n, 8, 8]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32)
    return images, torch.tensor(bunch.target).long()


def digit_strips(
    samples: int = 1000, shortest: int = 2, longest: int = 5, spacing: int = 4, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Strips [1, 8, width] with several digits side by side, and classes from 1 on, each."""
    images, labels = digits()
    random = torch.Generator().manual_seed(seed)
    inputs, targets = [], []
    for _ in range(samples):
        count = int(torch.randint(shortest, longest + 1, (), generator=random))
        chosen = torch.randint(len(images), (count,), generator=random)
        gaps = torch.randint(spacing + 1, (count + 1,), generator=random).tolist()
        parts = [torch.zeros(1, 8, gaps[0])]
        for row, gap in zip(chosen.tolist(), gaps[1:], strict=True):
            parts += [images[row], torch.zeros(1, 8, gap)]
        inputs.append(torch.cat(parts, dim=2))
        targets.append(labels[chosen] + 1)
    return inputs, targets


def soft_digits(temperature: float = 2.0) -> tuple[Tensor, Tensor]:
    """The digits with a teacher's probabilities; it judges those that it was not fitted on."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from threadpoolctl import threadpool_limits

    bunch = load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    teacher = LogisticRegression(max_iter=300, tol=1e-3)
    with threadpool_limits(1):  # so small a fit only waits for more threads
        scores = cross_val_predict(
            teacher, images.flatten(1).numpy(), bunch.target, method="decision_function", cv=3
        )
    return images, torch.softmax(torch.tensor(scores / temperature), dim=1).float()


def two_moons(samples: int = 1000, noise: float = 0.15, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points [n, 2] on two half circles that reach into each other."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(max(samples, 2), noise=noise, random_state=seed)
    inputs = torch.tensor(points[:samples], dtype=torch.float32)
    return inputs, torch.tensor(labels[:samples]).long()


def spirals(
    samples: int = 1500, noise: float = 0.05, classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Points [n, 2] on the arms of a spiral."""
    random = np.random.default_rng(seed)
    targets = np.arange(samples) % max(classes, 1)
    radius = np.sqrt(random.uniform(0.01, 1, samples))
    angle = 2 * np.pi * (radius + targets / max(classes, 1))
    points = radius * np.stack([np.cos(angle), np.sin(angle)])
    points += noise * random.standard_normal(points.shape)
    return torch.tensor(points.T, dtype=torch.float32), torch.tensor(targets).long()


def long_memory(
    samples: int = 2000, length: int = 60, symbols: int = 8, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random symbols [n, length, symbols], one-hot; the first of them is the target."""
    random = torch.Generator().manual_seed(seed)
    sequences = torch.randint(symbols, (samples, length), generator=random)
    return F.one_hot(sequences, symbols).float(), sequences[:, 0].clone()


def diabetes() -> tuple[Tensor, Tensor]:
    """442 patients [n, 10] and the progress of the disease [n, 1], both standardised."""
    from sklearn.datasets import load_diabetes

    table, progress = load_diabetes(return_X_y=True)
    inputs, targets = (torch.tensor(x, dtype=torch.float32) for x in (table, progress[:, None]))
    return (inputs - inputs.mean(0)) / inputs.std(0), (targets - targets.mean(0)) / targets.std(0)


def fake_images(
    samples: int = 512, size: int = 32, channels: int = 3, classes: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Noise as uint8 images [n, channels, size, size], with classes drawn at random."""
    random = torch.Generator().manual_seed(seed)
    shape = (samples, channels, size, size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=random)
    return images, torch.randint(classes, (samples,), generator=random)
