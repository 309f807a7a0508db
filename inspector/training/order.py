"""Where in the data a run is: the random numbers an epoch began with, and the batches since.

The order of an epoch is drawn when it begins. So an epoch is taken up again by drawing it with the
same random numbers and passing over the batches that are done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from inspector.errors import ConfigError, DataError
from inspector.training.random_numbers import random_numbers, set_random_numbers
from inspector.training.samples import Loader, as_is

_KNOWN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def first_batches(loader: Loader, count: int) -> Loader:
    """A loader of the first ``count`` batches, in their order, just as they were drawn.

    Raises:
        DataError: there is no batch.
    """
    batches: Any = list(islice(loader, count))
    if not batches:
        raise DataError("Expected batches to train on, but the loader gives none.")
    return DataLoader(batches, batch_size=None, collate_fn=as_is)


def generators(loader: Loader) -> list[torch.Generator]:
    """The generators that a loader and its samplers draw from, each once."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def beginning(loader: Loader) -> dict[str, Any]:
    """What the order of an epoch that begins now will be drawn with."""
    return {
        "random": random_numbers(),
        "generators": [generator.get_state() for generator in generators(loader)],
    }


@contextlib.contextmanager
def untouched(loader: Loader) -> Iterator[None]:
    """Looks at a loader without a trace: its next epoch is drawn as if nobody had looked."""
    begun = beginning(loader)
    try:
        yield
    finally:
        set_random_numbers(begun["random"])
        for generator, state in zip(generators(loader), begun["generators"], strict=True):
            generator.set_state(state)


def again(loader: Loader, begun: dict[str, Any], done: int) -> Iterator[Any]:
    """The rest of an epoch that began so, after ``done`` batches.

    The global random numbers are afterwards not those of that moment: set them.
    """
    set_random_numbers(begun["random"])
    for generator, state in zip(generators(loader), begun["generators"], strict=True):
        generator.set_state(state)
    batches = iter(loader)
    next_index = getattr(batches, "_next_index", None)
    if loader.num_workers == 0 and next_index and not isinstance(loader.dataset, IterableDataset):
        for _ in range(done):  # which samples, without loading them
            if next(_indices(next_index), None) is None:
                break
        return batches
    # Workers have random numbers of their own, which advance as they load.
    for _ in islice(batches, done):
        pass
    return batches


def _indices(next_index: Any) -> Iterator[Any]:
    try:
        yield next_index()
    except StopIteration:
        return


def refuse_unrepeatable(loader: Loader, source: str) -> None:
    """Raises ConfigError for data that cannot begin again, such as a generator."""
    dataset = loader.dataset
    if isinstance(dataset, Iterator):
        raise ConfigError(
            f"{source} is an iterator, which cannot go back to where the checkpoint was; "
            "let __iter__ of the data begin anew each time."
        )


def doubts(loader: Loader) -> list[str]:
    """Sentences about what of the order cannot be known to come back exactly."""
    found = []
    if isinstance(loader.dataset, IterableDataset):
        found.append(
            "The data is an IterableDataset: it was passed over up to the checkpoint, which is "
            "exact if it gives the same samples each time."
        )
    batches = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batches, "sampler", None))
    own = next(
        (
            sampler
            for sampler in samplers
            if sampler is not None
            and type(sampler) not in _KNOWN
            and not type(sampler).__name__.startswith("_")
        ),
        None,
    )
    if own is not None or (batches is not None and type(batches) is not BatchSampler):
        name = type(own if own is not None else batches).__name__
        found.append(f"{name} is not PyTorch's: the order is exact if it keeps no state.")
    if loader.num_workers and loader.persistent_workers:
        found.append("Persistent workers begin with fresh random numbers.")
    return found
