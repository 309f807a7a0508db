"""What a person checks before the start: samples, class counts, a batch as the model sees it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.numerals import short
from inspector.training.dry_run import dry_run
from inspector.training.models import build_model
from inspector.training.own.arguments import Argument, arguments, summary
from inspector.training.own.augment import Augment
from inspector.training.own.batches import describe, is_pair
from inspector.training.own.code import find_own
from inspector.training.own.datasets import OwnLoaders
from inspector.training.own.reference import load
from inspector.training.own.sources import AnySource, load_data
from inspector.training.own.weights import Comparison, compare, read_weights
from inspector.training.parts import split
from inspector.training.pretrained import PREFIX, load_pretrained
from inspector.training.samples import Examples
from inspector.training.task import build_task
from inspector.training.transcription import Transcripts

_IMAGES = 12
_STRIPS = 6
_TABLE_ROWS = 8
_TEXTS = 6
_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a reference to a user's Python leads to.

    Attributes:
        arguments: that a form offers.
        about: the first paragraph of its docstring.
        own_step: whether ``training_step`` is defined beside it.
    """

    arguments: list[Argument]
    about: str
    own_step: bool


@dataclass(slots=True)
class Preview:
    """Pictures, tables and numbers; nothing in it holds on to the data.

    Attributes:
        images: [height, width, 3] and a caption each.
        table: the first rows, where samples are rows.
        texts: pieces of text, where samples are characters.
        counts: samples of each class.
        layout: of the samples, see ``catalog.Layout``.
        parts: samples for training, validation and test; -1 where it is not known.
        batches: of an epoch, where a DataLoader is used as it is; 0 if it does not say.
        batch: a row for each tensor of a batch, as the model sees it.
        model: name, parameters and trainable parameters of the model; empty if it was not built.
    """

    kind: str
    layout: str = "other"
    images: list[tuple[NDArray[np.uint8], str]] = field(default_factory=list)
    table: pd.DataFrame | None = None
    texts: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    parts: tuple[int, int, int] = (-1, -1, -1)
    batches: int = 0
    batch: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    weights: Comparison | None = None
    model: str = ""


def inspect_reference(reference: str, code: str = "") -> Inspection:
    """Executes a user's source and looks at one name in it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    with untouched_random():
        loaded = load(reference, code)
    step = callable(getattr(loaded.module, "training_step", None))
    return Inspection(arguments(loaded.value), summary(loaded.value), step)


def preview_data(config: RunConfig) -> tuple[Preview, AnySource]:
    """Loads the data and looks at it.

    Raises:
        ConfigError, DataError: it cannot be used; the message names path and row.
        Exception: whatever the user's own code raises.
    """
    with untouched_random():
        own = find_own(config)
        source = load_data(config, own.data, "own" if own.step else config.task)
        made = Preview(source.kind, source.layout, notes=source.notes)
        if isinstance(source, OwnLoaders):
            with contextlib.suppress(TypeError):  # an iterable without a length
                made.batches = len(source.train)
            _show(made, source, next(iter(source.train)))
            return made, source
        rows = split(source, config)
        made.parts = (len(rows.train), len(rows.validation), len(rows.test))
        if source.labels is not None:
            counts = source.labels.bincount(minlength=len(source.class_names)).tolist()
            made.counts = dict(zip(source.class_names, counts, strict=False))
        _show(made, source, source.fetch(rows.train[:_IMAGES]))
    return made, source


@dataclass(frozen=True, slots=True)
class Few:
    """A few samples of the training part, to try augmentation on.

    Attributes:
        inputs, targets: as :class:`Augment` takes them.
        captions: what the target of each is, in words.
    """

    inputs: Tensor
    targets: Tensor
    captions: tuple[str, ...]


def few_samples(config: RunConfig, count: int = 4) -> Few:
    """Samples of the training part, before anything is changed.

    Raises:
        ConfigError, DataError: the data cannot be used, or is no images.
        Exception: whatever the user's own code raises.
    """
    with untouched_random():
        own = find_own(config)
        source = load_data(config, own.data, "own" if own.step else config.task)
        if isinstance(source, OwnLoaders) or source.layout != "image":
            raise ConfigError(
                f"augment changes images, but {config.data} has layout {source.layout}; "
                "set augment to []."
            )
        batch: Any = source.fetch(split(source, config).train[:count])
    if not is_pair(batch):
        raise ConfigError(
            f"augment needs batches of images and targets, but one of {config.data} is "
            f"{describe(batch)}; set augment to []."
        )
    inputs, targets = batch
    names = source.class_names if source.kind == "classification" else ()
    shown = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
    captions = tuple(_target(targets, place, names) for place in range(len(inputs)))
    return Few(shown, targets, captions)


def before_and_after(
    few: Few, entries: list[Any], draws: int, first: int = 0
) -> list[list[NDArray[np.uint8]]]:
    """Of each sample: the picture before, then ``draws`` pictures after; masks below images.

    Args:
        first: seed of the first draw.

    Raises:
        ConfigError, DataError: a transform cannot be applied.
    """
    augment = Augment(entries)
    made = [[_with_mask(x, y)] for x, y in zip(few.inputs, few.targets, strict=True)]
    for draw in range(first, first + draws):
        seeds = [draw * len(made) + place for place in range(len(made))]
        inputs, targets = augment((few.inputs, few.targets), seeds)
        for row, x, y in zip(made, inputs, targets, strict=True):
            row.append(_with_mask(x, y))
    return made


def _with_mask(image: Tensor, target: Tensor) -> NDArray[np.uint8]:
    picture = _picture(image)
    if target.ndim < 2 or target.shape[-2:] != image.shape[-2:]:
        return picture
    mask = target[None] if target.ndim == 2 else target
    return np.concatenate([picture, _picture(mask.float() / max(float(mask.max()), 1))])


def preview_model(config: RunConfig, source: AnySource, made: Preview) -> None:
    """Builds the model, compares weights, and tries one batch; adds what was seen to ``made``.

    Raises:
        ConfigError, ModelError, DataError: it cannot work.
        Exception: whatever the user's own code raises.
    """
    with untouched_random():
        if config.weights.startswith(PREFIX):
            bare = build_model(replace(config, weights=""), source, find_own(config).model)
            note = load_pretrained(bare, config.model, config.weights)
            made.notes = (*made.notes, note)
        elif config.weights:
            bare = build_model(replace(config, weights=""), source, find_own(config).model)
            made.weights = compare(bare, read_weights(config.weights))
            if not (made.weights.complete or config.weights_partial):
                return
        task = build_task(config, source=source)
        made.kind = task.kind
        made.batch = _rows(dry_run(task))
        count = sum(p.numel() for p in task.model.parameters())
        trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        made.model = f"{type(task.model).__name__}: {count:,} parameters, {trained:,} trained"
        if isinstance(task.train_set, Examples) and task.scale is not None:
            made.notes = (*made.notes, "Inputs are normalised by the training part.")


@contextlib.contextmanager
def untouched_random() -> Iterator[None]:
    """Global random numbers of Python, NumPy and PyTorch are afterwards as they were."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)


def _show(made: Preview, source: AnySource, batch: Any) -> None:
    made.batch = _rows(batch)
    if not (isinstance(batch, (tuple, list)) and isinstance(batch[0], Tensor)):
        return
    inputs = batch[0].detach().cpu()
    targets = batch[1].cpu() if len(batch) > 1 and isinstance(batch[1], Tensor) else None
    names = source.class_names if source.kind == "classification" else ()
    if source.layout == "strip" and isinstance(batch[1], Transcripts):
        made.images = [
            (_picture(strip[..., : batch[1].input_lengths[place]]), text)
            for place, (strip, text) in enumerate(
                zip(inputs[:_STRIPS], _written(batch[1], source.class_names), strict=False)
            )
        ]
    elif source.layout == "image":
        made.images = [
            (_picture(image), _target(targets, place, names))
            for place, image in enumerate(inputs[:_IMAGES])
        ]
    elif source.layout == "tokens":
        made.texts = [_text(row, source.class_names) for row in inputs[:_TEXTS].tolist()]
    elif source.layout == "table":
        columns = getattr(source, "feature_names", ()) or [
            f"column {i}" for i in range(inputs.shape[1])
        ]
        made.table = pd.DataFrame(inputs[:_TABLE_ROWS].numpy(), columns=list(columns))
        made.table["target"] = [_target(targets, place, names) for place in range(len(made.table))]


def _written(targets: Transcripts, names: tuple[str, ...]) -> list[str]:
    return [
        " ".join(names[label] for label in row[:length].tolist())
        for row, length in zip(targets.labels, targets.label_lengths.tolist(), strict=True)
    ]


def _picture(image: Tensor) -> NDArray[np.uint8]:
    """[channels, height, width] in any range as [height, width, 3] bytes."""
    pixels = image.float()
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / max(high - low, 1e-12)
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    return (pixels * 255).round().byte().permute(1, 2, 0).numpy()


def _text(tokens: list[int], names: tuple[str, ...]) -> str:
    if names and all(len(name) == 1 for name in names):
        return "".join(names[token] for token in tokens)
    return " ".join(map(str, tokens))


def _target(targets: Tensor | None, place: int, names: tuple[str, ...]) -> str:
    if targets is None:
        return ""
    target = targets[place]
    if target.ndim == 0:
        return names[int(target)] if names else short(target.item())
    if target.numel() <= 4:
        return ", ".join(short(value) for value in target.flatten().tolist())
    return "×".join(map(str, target.shape))


def _rows(batch: Any, name: str = "") -> list[dict[str, Any]]:
    """A row for each tensor: shape, type, range, mean and standard deviation."""
    if isinstance(batch, Tensor):
        return [{"tensor": name or "batch", **_facts(batch)}]
    if isinstance(batch, Mapping):
        parts = [(str(key), value) for key, value in batch.items()]
    elif isinstance(batch, tuple) and hasattr(batch, "_fields"):
        parts = list(zip(batch._fields, batch, strict=True))
    elif isinstance(batch, (tuple, list)):
        pair = len(batch) == 2 and not name
        names = ("inputs", "targets") if pair else tuple(f"[{i}]" for i in range(len(batch)))
        parts = list(zip(names, batch, strict=True))
    else:
        return []
    rows = [_rows(value, f"{name}.{key}".strip(".")) for key, value in parts[:16]]
    return [row for found in rows for row in found]


def _facts(values: Tensor) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "shape": "×".join(map(str, values.shape)) or "one number",
        "dtype": str(values.dtype).removeprefix("torch."),
    }
    if values.numel() == 0 or values.is_complex():
        return facts
    numbers = values.detach().double()
    for name, value in (
        ("lowest", numbers.min()),
        ("highest", numbers.max()),
        ("mean", numbers.mean()),
        ("std", numbers.std(correction=0)),
    ):
        facts[name] = float(f"{value.item():.{_DECIMALS}g}")
    return facts
