"""A user's own ``Dataset``, pair of them, or ``DataLoader``, from a factory in their Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
)

from inspector.catalog import Kind, Layout
from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError
from inspector.training.distribution import check_distributions
from inspector.training.order import untouched
from inspector.training.own.arguments import arguments, takes_anything
from inspector.training.own.batches import (
    Adapting,
    adapt,
    describe,
    guess_kind,
    is_pair,
    is_transcribed,
    layout_of,
)
from inspector.training.own.batches import collate as default_collate
from inspector.training.own.reference import Loaded
from inspector.training.own.reference import describe as in_words
from inspector.training.samples import Loader, nothing
from inspector.training.transcription import needed, pad

_ROWS = 20_000  # rows that are looked at before the start, at most
_SECONDS = 15.0
_FIRST = 4
_CLASSES: tuple[Kind, ...] = ("classification", "sequence", "per_pixel", "transcription")


@dataclass(frozen=True, slots=True)
class OwnSamples:
    """Rows of a user's Dataset; see :class:`inspector.training.samples.Samples`.

    Attributes:
        lengths: [n, 2] of a transcription: length of the input, steps that its labels need.
    """

    kind: Kind
    layout: Layout
    shape: tuple[int, ...]
    outputs: int
    class_names: tuple[str, ...]
    labels: Tensor | None
    dataset: Any
    collate: Callable[[Any], Any]
    fixed: tuple[Tensor, Tensor] | None = None
    notes: tuple[str, ...] = ()
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, rows: Tensor) -> Any:
        return adapt(self.collate([self.dataset[row] for row in rows.tolist()]), self.kind)


@dataclass(frozen=True, slots=True)
class OwnLoaders:
    """DataLoaders that a user made; they are used as they are."""

    kind: Kind
    layout: Layout
    shape: tuple[int, ...]
    outputs: int
    class_names: tuple[str, ...]
    train: Loader
    validation: Loader
    notes: tuple[str, ...] = ()
    labels: None = None


def load_own(loaded: Loaded, config: RunConfig, task: str) -> OwnSamples | OwnLoaders:
    """Calls the factory and looks at what it gives.

    Args:
        task: of ``config``, or ``own`` where there is a training_step.

    Raises:
        ConfigError: an argument is unknown, or the result is none of what can be used.
        DataError: there are no samples, or one of them cannot be used; its row is named.
        Exception: whatever the factory itself raises.
    """
    made = _call(loaded.value, config)
    usual = pad if task == "transcription" else default_collate
    collate = getattr(loaded.module, "collate_fn", usual)
    if isinstance(made, (tuple, list)) and len(made) == 2 and all(map(_is_array, made)):
        x, y = (torch.as_tensor(part) for part in made)
        if len(x) != len(y):
            raise DataError(f"Expected as many targets as inputs, but got {len(x)} and {len(y)}.")
        made = TensorDataset(x, y)
    pair = tuple(made) if isinstance(made, (tuple, list)) else (made,)
    usable = (Dataset, DataLoader)
    if not 1 <= len(pair) <= 2 or not all(
        isinstance(one, usable) or _is_mapped(one) for one in pair
    ):
        raise ConfigError(
            f"Expected {config.data} to give a Dataset, a DataLoader, or two of them for training "
            f"and validation, but got {describe(made)}; return one of these."
        )
    if any(isinstance(one, (DataLoader, IterableDataset)) for one in pair):
        return _loaders(pair, collate, config, task)
    return _samples(pair, collate, task)


def _call(value: Any, config: RunConfig) -> Any:
    if isinstance(value, (Dataset, DataLoader)):
        return value
    if not callable(value):
        raise ConfigError(
            f"Expected {config.data} to be a function or class, but got {value!r:.60}."
        )
    known = [argument.name for argument in arguments(value)]
    unknown = sorted(set(config.data_args) - set(known))
    if unknown and not takes_anything(value):
        raise ConfigError(
            f"Data {config.data} has no argument {unknown[0]!r}; "
            f"choose from {', '.join(known) or 'none (it has no arguments)'}."
        )
    return value(**config.data_args)


def _samples(pair: tuple[Any, ...], collate: Callable[[Any], Any], task: str) -> OwnSamples:
    for part, dataset in zip(("training", "validation"), pair, strict=False):
        _length(dataset, part if len(pair) > 1 else "")
    fixed = None
    dataset = pair[0]
    if len(pair) == 2:
        dataset = ConcatDataset(pair)
        ends = len(pair[0]), len(dataset)
        fixed = torch.arange(ends[0]), torch.arange(ends[0], ends[1])
    samples = [_sample(dataset, row) for row in range(min(_FIRST, len(dataset)))]
    try:
        batch = collate(samples)
    except Exception as error:
        raise DataError(
            f"Samples 0 to {len(samples) - 1} cannot be put into one batch ({in_words(error)}); "
            "give them one shape, or define collate_fn(samples) in the same file."
        ) from error
    kind = guess_kind(batch, task)
    batch = adapt(batch, kind)
    found = _scan(dataset, kind)
    labels, notes = found.labels, found.notes
    first = pair[0]
    names = _class_names(first, labels, kind, batch)
    if labels is not None and len(names):
        _check_labels(labels, len(names), hasattr(first, "classes"), kind == "transcription")
    inputs = batch[0] if is_pair(batch) or is_transcribed(batch) else None
    strip = kind == "transcription" and inputs is not None and inputs.ndim == 4
    return OwnSamples(
        kind,
        "strip" if strip else layout_of(inputs) if inputs is not None else "other",
        tuple(inputs.shape[1:]) if inputs is not None else (),
        len(names) or _numbers(batch, kind),
        names,
        labels
        if kind == "classification" and labels is not None and len(labels) == len(dataset)
        else None,
        dataset,
        collate,
        fixed,
        notes,
        found.lengths,
    )


def _loaders(
    pair: tuple[Any, ...], collate: Callable[[Any], Any], config: RunConfig, task: str
) -> OwnLoaders:
    unused = [
        name
        for name in ("normalize", "balance", "stratify", "test", "augment")
        if getattr(config, name)
    ]
    if unused:
        raise ConfigError(
            f"{unused[0]} cannot be applied to a DataLoader that is used as it is; "
            "switch it off, or return the Dataset."
        )
    made: list[Loader] = [
        one
        if isinstance(one, DataLoader)
        else DataLoader(one, config.batch_size, collate_fn=collate, num_workers=config.workers)
        for one in pair
    ]
    try:
        with untouched(made[0]):
            batch = next(iter(made[0]))
    except StopIteration:
        raise DataError(
            f"Expected batches from {config.data}, but the loader gives none; "
            "with drop_last it needs at least one full batch."
        ) from None
    kind = guess_kind(batch, task)
    batch = adapt(batch, kind)
    for loader in made:
        loader.collate_fn = Adapting(loader.collate_fn, kind)
    dataset = made[0].dataset
    inputs = batch[0] if is_pair(batch) else None
    names = tuple(map(str, getattr(dataset, "classes", ())))
    if kind == "classification" and not names and isinstance(dataset, Dataset):
        kept = _kept_labels(dataset)
        highest = int((kept if kept is not None else batch[1]).max())
        names = tuple(str(label) for label in range(highest + 1))
    notes = (
        f"The DataLoader is used as it is: batches of {made[0].batch_size or 'its own size'}.",
    )
    return OwnLoaders(
        kind,
        layout_of(inputs) if inputs is not None else "other",
        tuple(inputs.shape[1:]) if inputs is not None else (),
        len(names) or _numbers(batch, kind),
        names,
        made[0],
        made[1] if len(made) > 1 else nothing(),
        notes,
    )


class _Scanned(NamedTuple):
    labels: Tensor | None
    notes: tuple[str, ...]
    lengths: Tensor | None


def _scan(dataset: Any, kind: Kind) -> _Scanned:
    """Reads the samples, so that a broken one is known before the start; what was found."""
    count, end = len(dataset), time.monotonic() + _SECONDS
    kept = _kept_labels(dataset) if kind == "classification" else None
    step = 1 if kept is None else max(count // 500, 1)
    labels: list[int] = []
    lengths: list[tuple[int, int]] = []
    shares: list[Tensor] = []
    looked = 0
    for row in range(0, min(count, _ROWS) if kept is None else count, step):
        sample = _sample(dataset, row)
        looked += 1
        if kind in _CLASSES and kept is None:
            labels.append(_label(sample, row, kind))
        if kind == "transcription":
            lengths.append(_lengths(sample))
        if kind == "distribution":
            shares.append(torch.as_tensor(sample[1], dtype=torch.float32).flatten())
        if time.monotonic() > end:
            break
    notes: tuple[str, ...] = ()
    if looked * step < count:
        notes = (f"{looked:,} of {count:,} samples were looked at before the start.",)
    if shares:
        check_distributions(torch.stack(shares), type(dataset).__name__)
    found = kept if kept is not None else torch.tensor(labels) if labels else None
    return _Scanned(found, notes, torch.tensor(lengths) if lengths else None)


def _lengths(sample: Any) -> tuple[int, int]:
    inputs, labels = torch.as_tensor(sample[0]), torch.as_tensor(sample[1]).flatten()
    return inputs.shape[2] if inputs.ndim == 3 else len(inputs), needed(labels)


def _kept_labels(dataset: Any) -> Tensor | None:
    """Labels of all samples where a data set holds them, as torchvision's do."""
    if isinstance(dataset, ConcatDataset):
        parts = [_kept_labels(part) for part in dataset.datasets]
        return torch.cat(parts) if all(p is not None for p in parts) else None  # type: ignore[arg-type]
    if isinstance(dataset, TensorDataset):
        kept: Any = dataset.tensors[-1]
    else:
        kept = getattr(dataset, "targets", None)
    try:
        labels = torch.as_tensor(kept)
    except (TypeError, ValueError, RuntimeError):
        return None
    whole = not labels.is_floating_point() and labels.ndim == 1 and len(labels) == len(dataset)
    return labels.long() if whole else None


def _label(sample: Any, row: int, kind: Kind) -> int:
    """The highest label of a sample; the lowest if that is negative."""
    target = torch.as_tensor(sample[1])
    if target.is_floating_point() and bool((target != target.round()).any()):
        raise DataError(
            f"Row {row}: expected a class number for {kind}, but got {sample[1]!r:.60}."
        )
    if not target.numel():
        raise DataError(f"Row {row}: expected one label or more for {kind}, but there is none.")
    low, high = int(target.min()), int(target.max())
    return low if low < (kind == "transcription") else high


def _check_labels(labels: Tensor, classes: int, named: bool, blank: bool = False) -> None:
    """``blank``: class 0 stands for nothing and is no label."""
    least = int(blank)
    wrong = ((labels < least) | (labels >= classes)).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"Row {row}: expected a label from {least} to {classes - 1}, but got "
            f"{int(labels[row])} ({len(wrong):,} such rows); renumber the labels"
            f"{', or mend the names in classes' if named else ''}."
        )


def _class_names(dataset: Any, labels: Tensor | None, kind: Kind, batch: Any) -> tuple[str, ...]:
    named = tuple(map(str, getattr(dataset, "classes", ())))
    if kind == "multi_label":
        return named or tuple(f"label {place}" for place in range(batch[1].shape[1]))
    if kind == "distribution":
        return named or tuple(map(str, range(batch[1].shape[1])))
    if kind not in _CLASSES or labels is None:
        return ()
    if kind == "transcription":
        return ("blank", *(named or map(str, range(1, int(labels.max()) + 1))))
    return named or tuple(str(label) for label in range(max(int(labels.max()), 0) + 1))


def _numbers(batch: Any, kind: Kind) -> int:
    """How many numbers are to be predicted for a sample."""
    return int(batch[1].shape[1]) if is_pair(batch) and kind != "own" and batch[1].ndim > 1 else 0


def _sample(dataset: Any, row: int) -> Any:
    try:
        return dataset[row]
    except Exception as error:
        name = type(dataset).__name__
        raise DataError(f"Row {row} of {name} cannot be read: {_where(error)}.") from error


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename if trace is not None else ""
    at = f" ({file}, line {trace.tb_lineno})" if trace is not None else ""
    return f"{in_words(error)}{at}"


def _length(dataset: Any, part: str) -> None:
    name = type(dataset).__name__
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(
            f"Expected {name} to say how many samples it has, but it has no __len__; "
            "add one, or make it an IterableDataset."
        ) from error
    if count == 0:
        raise DataError(
            f"Expected samples in {name}{f' for {part}' * bool(part)}, but it is empty; "
            "check where it reads from."
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _is_mapped(value: Any) -> bool:
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, (str, bytes, dict, tuple))
    )
