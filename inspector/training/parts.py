"""Training, validation and test parts of samples, and the loaders of their batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError
from inspector.training.own.augment import build_augment
from inspector.training.samples import Draw, Examples, Loader, Samples, Scale, as_is

_BLOCK = 2048  # rows fetched at a time
_MEASURED = 20_000  # rows that mean and standard deviation are computed from, at most
_WORKER_SECONDS = 60.0  # a worker that gives nothing for so long has hung


class Loaders(NamedTuple):
    """Loaders of the parts; validation and test may be empty."""

    train: Loader
    validation: Loader
    test: Loader
    scale: Scale | None = None


class Rows(NamedTuple):
    """Row numbers of the parts."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split(source: Samples, config: RunConfig) -> Rows:
    """The rows of each part, in an order of their own that ``config.seed`` alone determines.

    Raises:
        ConfigError: it is to be stratified, but samples have no single class.
        DataError: nothing is left to train on.
    """
    if source.fixed is not None:
        return Rows(*source.fixed, torch.empty(0, dtype=torch.long))
    count = len(source)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed))
    held, kept = round(config.validation * count), round(config.test * count)
    if held + kept >= count:
        raise DataError(
            f"Expected samples to train on, but all {count} of {config.data} are held out "
            f"by validation={config.validation}{f' and test={config.test}' * bool(config.test)}; "
            "ask for more samples or hold out fewer."
        )
    if not config.stratify:
        return Rows(order[held + kept :], order[:held], order[held : held + kept])
    part = torch.zeros(count, dtype=torch.long)
    labels = _labels(source, config, "stratify")[order]
    for label in torch.unique(labels):
        places = (labels == label).nonzero()[:, 0]
        end = round(config.validation * len(places))
        end_of_test = min(end + round(config.test * len(places)), len(places) - 1)
        part[places[: min(end, len(places) - 1)]] = 1
        part[places[end:end_of_test]] = 2
    return Rows(order[part == 0], order[part == 1], order[part == 2])


def loaders(source: Samples, config: RunConfig, *, size: int = 0, echo: bool = False) -> Loaders:
    """The shuffled training part, and the other parts in their order.

    Split and shuffling have generators of their own, seeded by ``config.seed``, so that they do
    not depend on other uses of torch's random numbers.
    """
    rows = split(source, config)
    augment = build_augment(config.augment, source, config.data)
    scale = measure(source, rows.train) if config.normalize else None
    parts = [Examples(source, part, size=size, echo=echo, scale=scale) for part in rows]
    parts[0].augment = augment
    shuffle = torch.Generator().manual_seed(config.seed + 1)
    options: dict[str, Any] = {
        "collate_fn": as_is,
        "num_workers": config.workers,
        "pin_memory": config.pin_memory and torch.cuda.is_available(),
        "timeout": _WORKER_SECONDS if config.workers else 0,
    }
    seeded = augment is not None
    order: dict[str, Any] = {"shuffle": True, "generator": shuffle}
    if config.balance:
        weights = balance(_labels(source, config, "balance")[rows.train])
        weighted = _SeededWeightedSampler if seeded else WeightedRandomSampler
        order = {"sampler": weighted(weights, len(rows.train), generator=shuffle)}
    elif seeded:
        order = {"sampler": _SeededSampler(parts[0], generator=shuffle), "generator": shuffle}
    large = max(config.batch_size, 256)
    return Loaders(
        DataLoader(parts[0], config.batch_size, **order, **options),
        DataLoader(parts[1], large, **options),
        DataLoader(parts[2], large, **options),
        scale,
    )


class _SeededSampler(RandomSampler):
    """Draws samples at random, each with the seed of its augmentation."""

    def __iter__(self) -> Iterator[Any]:
        return _seeded(list(super().__iter__()), self.generator)


class _SeededWeightedSampler(WeightedRandomSampler):
    """Draws classes equally often, each sample with the seed of its augmentation."""

    def __iter__(self) -> Iterator[Any]:
        return _seeded(list(super().__iter__()), self.generator)


def _seeded(places: list[int], generator: Any) -> Iterator[Draw]:
    seeds = torch.randint(2**62, (len(places),), generator=generator).tolist()
    return map(Draw, places, seeds)


def balance(labels: Tensor) -> list[float]:
    """A weight for each sample, so that each class is drawn equally often."""
    counts = labels.bincount()
    return (1.0 / counts[labels].double()).tolist()


def measure(source: Samples, rows: Tensor) -> Scale:
    """Mean and standard deviation of the inputs of these rows, per channel or column.

    Of very many rows, an even selection is measured. A constant column keeps its scale.

    Raises:
        ConfigError: the inputs are not real numbers, or batches are padded.
    """
    if source.kind == "transcription":
        raise ConfigError(
            "normalize would count the padding of samples of different lengths; switch it off."
        )
    picked = rows[:: math.ceil(len(rows) / _MEASURED)]
    total = squares = torch.zeros(1, dtype=torch.float64)
    count, axis, ndim = 0, -1, 2
    for block in torch.split(picked, _BLOCK):
        batch = source.fetch(block)
        inputs = batch[0] if isinstance(batch, (tuple, list)) else None
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
            raise ConfigError(
                "normalize needs samples of real numbers, but these are "
                f"{getattr(inputs, 'dtype', 'no pair of tensors')}; switch it off."
            )
        ndim, axis = inputs.ndim, 1 if source.layout == "image" else inputs.ndim - 1
        others = [dim for dim in range(ndim) if dim != axis]
        inputs = inputs.double()
        total = total + inputs.sum(others)
        squares = squares + inputs.square().sum(others)
        count += inputs.numel() // inputs.shape[axis]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 1e-8 * (1 + mean.abs()), std, torch.ones_like(std))
    shape = [1] * ndim
    shape[axis] = -1
    return Scale(mean.view(shape).float(), std.view(shape).float())


def _labels(source: Samples, config: RunConfig, setting: str) -> Tensor:
    if source.labels is None:
        raise ConfigError(
            f"{setting} needs samples with one class each, but {config.data} is for {source.kind}; "
            "switch it off."
        )
    return source.labels
