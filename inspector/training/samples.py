"""Samples and what is to be said about them; where they come from does not matter to the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from inspector.catalog import Kind, Layout

Batch = tuple[Tensor, Tensor]
Loader = DataLoader[Any]

LABELLED: tuple[Kind, ...] = ("classification",)


class Samples(Protocol):
    """What the trainer wants to know of samples.

    Attributes:
        shape: of one sample.
        outputs: number of classes, or of numbers to predict; 0 if it is not known.
        class_names: one per class, label or character; empty for numbers.
        labels: [n] int64, one class per sample; None if samples have no single class.
        notes: what a person should know before the start.
        fixed: rows of the training and validation parts, where the user has split already.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def outputs(self) -> int: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def fixed(self) -> tuple[Tensor, Tensor] | None: ...
    def __len__(self) -> int: ...
    def fetch(self, rows: Tensor) -> Any:
        """The batch of these rows: inputs and targets, or what a step of the user's own takes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Samples in memory.

    Attributes:
        inputs: [n, *shape]; float32, or uint8 which is scaled to [0, 1] batch by batch, or
            int64 tokens.
        targets: [n] int64 class indices, [n, k] float32 numbers (0 and 1 for labels),
            [n, steps] or [n, height, width] int64 classes.
        class_names: one per class, label or character; empty for numbers.
        feature_names: one per column of a table, where they have names.
    """

    kind: Kind
    layout: Layout
    inputs: Tensor
    targets: Tensor
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])

    @property
    def outputs(self) -> int:
        return len(self.class_names) or int(self.targets.shape[1])

    @property
    def labels(self) -> Tensor | None:
        return self.targets if self.kind in LABELLED else None

    @property
    def fixed(self) -> tuple[Tensor, Tensor] | None:
        return None

    def fetch(self, rows: Tensor) -> Batch:
        inputs = self.inputs[rows]
        if inputs.dtype == torch.uint8:
            inputs = inputs.float() / 255
        return inputs, self.targets[rows]


@dataclass(frozen=True, slots=True)
class Scale:
    """What is subtracted from inputs, and what they are divided by; both broadcast over a batch."""

    mean: Tensor
    std: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std


class Draw(NamedTuple):
    """A sample that is drawn, and the seed of its augmentation."""

    place: int
    seed: int


class Examples(Dataset[Any]):
    """Rows of a source, fetched a batch at a time.

    Args:
        size: images are enlarged to so many pixels; 0 leaves them.
        echo: the input is the target too.
        scale: applied to the inputs.
        augment: changes a batch by one seed for each sample, before everything else; a sample
            that is asked for without a seed stays as it is.
    """

    def __init__(
        self,
        source: Samples,
        rows: Tensor,
        *,
        size: int = 0,
        echo: bool = False,
        scale: Scale | None = None,
        augment: Callable[[Any, Sequence[int]], Any] | None = None,
    ) -> None:
        self.source, self.rows, self.size, self.echo, self.scale = source, rows, size, echo, scale
        self.augment = augment

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int | Draw]) -> Any:
        places = [one.place if isinstance(one, Draw) else one for one in indices]
        seeds = [one.seed for one in indices if isinstance(one, Draw)]
        batch = self.source.fetch(self.rows[places])
        if self.augment is not None and seeds:
            batch = self.augment(batch, seeds)
        if not (self.size or self.echo or self.scale):
            return batch
        inputs, targets = batch
        if self.scale:
            inputs = self.scale(inputs)
        if self.size:
            inputs = F.interpolate(inputs, self.size, mode="bilinear", antialias=True)
        return inputs, inputs if self.echo else targets


def nothing() -> Loader:
    """A loader of an empty part."""
    empty: Any = []
    return DataLoader(empty)


def as_is(batch: Any) -> Any:
    """Collates nothing: :class:`Examples` gives whole batches."""
    return batch
