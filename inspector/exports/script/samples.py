"""Where the samples of a script are from: functions, a file beside it, or the user's own Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from inspector.catalog import Kind
from inspector.errors import ExportError
from inspector.exports.script import pieces
from inspector.exports.script.facts import Facts
from inspector.exports.script.model import import_own
from inspector.exports.script.text import Imports, Lines, call, source_of
from inspector.training import bundled
from inspector.training.own import batches
from inspector.training.own.datasets import OwnLoaders, OwnSamples
from inspector.training.random_numbers import random_numbers
from inspector.training.samples import Source
from inspector.training.transcription import Strips, pad

_BUNDLED: dict[str, Callable[..., Any]] = {
    name: getattr(bundled, name)
    for name in (
        "digits", "digit_rows", "digit_strips", "soft_digits", "two_moons", "spirals",
        "long_memory", "diabetes", "fake_images",
    )
}  # fmt: skip
_DOWNLOADED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
_LARGEST = 2 << 30
_TRIED = 64  # samples that are asked for twice


@dataclass(frozen=True, slots=True)
class Given:
    """What ``main`` has of the samples.

    Attributes:
        form: ``tensors`` of all samples named ``inputs`` and ``targets``, a ``dataset``, or the
            user's own ``loaders``.
        inputs, targets: expressions of a batch's parts: what model and loss are to get of them.
        collate: name of the function that makes batches of samples; empty for PyTorch's.
    """

    form: Literal["tensors", "dataset", "loaders"]
    inputs: str = "inputs"
    targets: str = "targets"
    collate: str = ""


def write_samples(
    facts: Facts, imports: Imports, definitions: list[str], main: Lines, out: Path
) -> Given:
    """Adds what makes or reads the samples.

    Raises:
        ExportError: they are drawn at random by the user's own code, and then augmented.
    """
    source, config = facts.task.source, facts.config
    if isinstance(source, OwnLoaders):
        return _own_loaders(facts, source, imports, main)
    if isinstance(source, Strips):
        definitions += source_of(imports, _BUNDLED[config.data], pad)
        main.add(f"inputs, targets = {call(config.data, config.data_args)}",
                 "dataset = list(zip(inputs, targets, strict=True))")  # fmt: skip
        return Given("dataset", collate="pad")
    if isinstance(source, OwnSamples):
        kept = None if facts.task.kind == "own" else _fixed(facts, source)
        if kept is None:
            return _own_dataset(facts, source, imports, definitions, main, out)
        return _saved(facts, *kept, imports, definitions, main, out)
    return _tensors(facts, source, imports, definitions, main, out)


def _tensors(
    facts: Facts, source: Source, imports: Imports, definitions: list[str], main: Lines, out: Path
) -> Given:
    name, given = facts.config.data, facts.config.data_args
    if name in _BUNDLED:
        definitions += source_of(imports, _BUNDLED[name])
        main.add(f"inputs, targets = {call(name, given)}")
    elif name in _DOWNLOADED:
        definitions += source_of(imports, pieces.mnist)
        main.add(f"inputs, targets = {call('mnist', {'name': _DOWNLOADED[name], **given})}")
    elif name == "cifar10":
        definitions += source_of(imports, pieces.cifar10)
        main.add(f"inputs, targets = {call('cifar10', given)}")
    else:
        _saved(facts, source.inputs, source.targets, imports, definitions, main, out)
    if source.inputs.dtype != torch.uint8:
        return Given("tensors")
    if facts.config.augment:
        main.add("inputs = inputs.float() / 255")
        return Given("tensors")
    return Given("tensors", "inputs.float() / 255")


def _saved(
    facts: Facts, inputs: Tensor, targets: Tensor,
    imports: Imports, definitions: list[str], main: Lines, out: Path,
) -> Given:  # fmt: skip
    torch.save({"inputs": inputs, "targets": targets}, out / "samples.pt")
    definitions += source_of(imports, pieces.saved_samples)
    main.add(f"inputs, targets = saved_samples()  # of {facts.run.config['data']}")
    return Given("tensors")


def _fixed(facts: Facts, source: OwnSamples) -> tuple[Tensor, Tensor] | None:
    """All samples, where they are tensors of one shape and the same whenever they are read."""
    if source.kind == "transcription" or facts.collates:
        return None
    before, some = random_numbers(), torch.arange(min(len(source), _TRIED))
    if not _same(source.fetch(some), source.fetch(some)):
        return None
    batch: Any = source.fetch(torch.arange(len(source)))
    tensors = isinstance(batch, (tuple, list)) and all(isinstance(x, Tensor) for x in batch)
    if not tensors or not _same(before, random_numbers()):
        return None
    return (batch[0], batch[1]) if sum(x.nbytes for x in batch) <= _LARGEST else None


def _same(some: Any, other: Any) -> bool:
    if isinstance(some, Tensor):
        return torch.equal(some, other)
    if isinstance(some, dict):
        return all(_same(some[key], other[key]) for key in some)
    if isinstance(some, (tuple, list)):
        return len(some) == len(other) and all(map(_same, some, other))
    return bool(some == other)


def _own_dataset(
    facts: Facts, source: OwnSamples,
    imports: Imports, definitions: list[str], main: Lines, out: Path,
) -> Given:  # fmt: skip
    config = facts.config
    if config.augment:
        raise ExportError(
            f"A script cannot augment the samples of {facts.run.config['data']}, since they are "
            "not the same tensors each time they are read; export config instead."
        )
    _write_own_dataset(facts, source, imports, main)
    if config.stratify or config.balance:
        torch.save(source.labels, out / "labels.pt")
        imports.add("from pathlib import Path")
        main.add('targets = torch.load(Path(__file__).with_name("labels.pt"), weights_only=True)')
    samples = [source.dataset[row] for row in range(min(4, len(source)))]
    collate = ""
    if facts.collates:
        collate = import_own(config.data.rpartition(":")[0] + ":collate_fn", imports)
    elif source.kind == "transcription":
        definitions += source_of(imports, pad)
        collate = "pad"
    elif any(isinstance(part, Image) for part in _parts(samples[0])):
        definitions += source_of(imports, batches.collate)
        collate = "collate"
    return Given("dataset", *adaptation(source.collate(samples), source.kind), collate)


def _write_own_dataset(facts: Facts, source: OwnSamples, imports: Imports, main: Lines) -> None:
    found = _found(facts, imports)
    if source.fixed is not None:
        imports.add("from torch.utils.data import ConcatDataset")
        main.add(f"dataset = ConcatDataset({found})")
    elif isinstance(source.dataset, TensorDataset):  # where two arrays were given, made of them
        imports.add("from torch.utils.data import Dataset, TensorDataset")
        main.add(f"found = {found}",
                 "arrays = () if isinstance(found, Dataset) else map(torch.as_tensor, found)",
                 "dataset = TensorDataset(*arrays) if arrays else found")  # fmt: skip
    else:
        main.add(f"dataset = {found}")


def _found(facts: Facts, imports: Imports) -> str:
    """What the user's own name gives, as an expression."""
    name = import_own(facts.config.data, imports)
    ready = facts.own.data is not None and isinstance(facts.own.data.value, (Dataset, DataLoader))
    return name if ready else call(name, facts.config.data_args)


def _own_loaders(facts: Facts, source: OwnLoaders, imports: Imports, main: Lines) -> Given:
    found = _found(facts, imports)
    main.add(
        f"train_loader, val_loader = {found}" if facts.validates else f"train_loader = {found}"
    )
    adapting: Any = source.train.collate_fn
    source.train.collate_fn = adapting.collate
    try:
        batch = next(iter(source.train))
    finally:
        source.train.collate_fn = adapting
    return Given("loaders", *adaptation(batch, source.kind))


def adaptation(batch: Any, kind: Kind) -> tuple[str, str]:
    """What :func:`inspector.training.own.batches.adapt` does to such a batch, as expressions."""
    if kind == "own" or not (batches.is_pair(batch) or batches.is_transcribed(batch)):
        return "inputs", "targets"
    before, after = batch, batches.adapt(batch, kind)
    inputs = "inputs"
    if before[0].dtype != after[0].dtype:
        inputs = {torch.float32: "inputs.float()", torch.int64: "inputs.long()"}[after[0].dtype]
    if before[0].dtype == torch.uint8:
        inputs = "inputs.float() / 255"
    if kind == "transcription":
        return inputs, "targets"
    targets = "targets"
    if before[1].dtype != after[1].dtype:
        targets = {torch.float32: "targets.float()", torch.int64: "targets.long()"}[after[1].dtype]
    if before[1].ndim != after[1].ndim:
        targets += "[:, None]" if before[1].ndim < after[1].ndim else "[:, 0]"
    return inputs, targets


def _parts(sample: Any) -> list[Any]:
    if isinstance(sample, dict):
        sample = list(sample.values())
    return list(sample) if isinstance(sample, (tuple, list)) else [sample]
