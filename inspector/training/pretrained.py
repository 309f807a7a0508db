"""Weights that torchvision's models were trained to: by name, fetched from where torchvision does.

They are kept in the ``weights`` folder beside downloaded data; a file put there by hand is used.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inspector.errors import ConfigError, ModelError
from inspector.numerals import short
from inspector.training import downloads
from inspector.training.downloads import Progress
from inspector.training.own.weights import compare, read_weights

PREFIX = "torchvision:"


@dataclass(frozen=True, slots=True)
class Offered:
    """One of a model's weights.

    Attributes:
        about: what torchvision says of them, such as accuracy and size.
    """

    name: str
    about: str


def offered(model: str) -> list[Offered]:
    """The weights that torchvision has for ``torchvision:NAME``, the best last; none for others."""
    entries = _entries(model) if model.startswith(PREFIX) else []
    return [Offered(f"{PREFIX}{entry.name}", _about(entry)) for entry in entries]


def load_pretrained(
    model: nn.Module, name: str, weights: str, progress: Progress | None = None
) -> str:
    """Copies weights by name into one of torchvision's models; what it does not take, in words.

    The last layer keeps its initial values where it has other classes. A first convolution of other
    than three channels gets the mean of the colours, scaled so that its outputs keep their size.

    Args:
        name: ``torchvision:NAME`` of the model.
        weights: ``torchvision:NAME`` of the weights, or ``torchvision:DEFAULT``.

    Raises:
        ConfigError: the model has no weights of that name.
        DataError: they can be neither found nor downloaded.
        ModelError: they do not fit, beyond the first and the last layer.
    """
    entry = _find(name, weights)
    file = entry.url.rpartition("/")[2]
    found = re.search(r"-([0-9a-f]{8,})\.", file)
    path = downloads.fetch(
        [entry.url], downloads.folder() / "weights" / file, found[1] if found else "", progress,
        algorithm="sha256", otherwise="start without weights",
    )  # fmt: skip
    state = read_weights(str(path))
    own = model.state_dict()
    classes = len(entry.meta.get("categories", ())) or 1000
    head, changed = [], 0
    for key, value in list(state.items()):
        mine = own.get(key)
        if mine is None or mine.shape == value.shape:
            continue
        if value.ndim == 4 and mine.shape[2:] == value.shape[2:] and mine.shape[0] == len(value):
            state[key] = _colours(value, mine.shape[1])
            changed = mine.shape[1]
        elif len(value) == classes:
            head.append(key)
            del state[key]
    compared = compare(model, state)
    if set(compared.missing) - set(head) or compared.different:
        raise ModelError(
            f"The weights {weights} do not fit {name}: {compared.sentence()}; "
            "leave out what changes its sizes in model_args."
        )
    with torch.no_grad():
        for key in compared.fitting:
            own[key].copy_(state[key])
    return _told(entry, head, changed, classes)


def _entries(model: str) -> list[Any]:
    import torchvision.models as zoo

    try:
        return list(zoo.get_model_weights(model.removeprefix(PREFIX)))
    except ValueError:
        return []


def _find(model: str, weights: str) -> Any:
    entries = _entries(model) if model.startswith(PREFIX) else []
    wanted = weights.removeprefix(PREFIX)
    names = [entry.name for entry in entries]
    if entries and wanted == "DEFAULT":
        return type(entries[0]).DEFAULT
    if wanted not in names:
        raise ConfigError(
            f"There are no weights {weights!r} for {model}; choose from "
            f"{', '.join(PREFIX + name for name in names) or 'a file: torchvision has none'}."
        )
    return entries[names.index(wanted)]


def _colours(weight: Tensor, channels: int) -> Tensor:
    """The mean over the three colours for each channel, times 3 / channels."""
    mean = weight.mean(1, keepdim=True)
    return mean.expand(-1, channels, -1, -1) * (weight.shape[1] / channels)


def _about(entry: Any) -> str:
    scores: dict[str, float] = next(iter(entry.meta.get("_metrics", {}).values()), {})
    size = entry.meta.get("_file_size", math.nan)
    top = f", {scores['acc@1']:.1f}% right on ImageNet" if "acc@1" in scores else ""
    return f"{entry.name}: {size:.0f} MB{top}"


def _told(entry: Any, head: list[str], channels: int, classes: int) -> str:
    text = f"Weights {entry.name} are loaded"
    if head:
        text += f", but for {', '.join(head)}, which had {classes} classes"
    if channels:
        text += f"; the first convolution was fitted to {channels} channels"
    crop = entry.transforms()
    mean, std = (", ".join(short(x, 3) for x in one) for one in (crop.mean, crop.std))
    return (
        f"{text}. They were trained on images of {crop.crop_size[0]} pixels with mean {mean} and "
        f"standard deviation {std} per colour."
    )
