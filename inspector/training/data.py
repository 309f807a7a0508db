"""The built-in data sources by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from inspector.catalog import OWN_CODE, OWN_FILES
from inspector.errors import ConfigError, DataError
from inspector.training import bundled, downloads
from inspector.training.downloads import Progress
from inspector.training.samples import Source
from inspector.training.transcription import Strips

_DIGITS = tuple(str(digit) for digit in range(10))


def load(name: str, args: dict[str, Any], progress: Progress | None = None) -> Source | Strips:
    """The samples of a data source.

    Args:
        args: keyword arguments of the source, see docs/models-and-data.md.
        progress: told what is being downloaded and how far it is (0 to 1).

    Raises:
        ConfigError: the name or an argument is unknown, or has no usable value.
        DataError: the samples cannot be downloaded or read, or there are none.
    """
    if name not in _SOURCES:
        own = ", ".join(f"{kind}:…" for kind in ("torchvision", *OWN_FILES, *OWN_CODE))
        raise ConfigError(
            f"There is no data named {name!r}; choose from {', '.join(_SOURCES)}, or {own}."
        )
    make = _SOURCES[name]
    known = [key for key in inspect.signature(make).parameters if key != "progress"]
    unknown = sorted(set(args) - set(known))
    if unknown:
        raise ConfigError(
            f"Data {name} has no argument {unknown[0]!r}; "
            f"choose from {', '.join(known) or 'none (it has no arguments)'}."
        )
    for key, value in args.items():
        wanted = inspect.signature(make).parameters[key].default
        if isinstance(value, bool) or not isinstance(value, (int, type(wanted))) or value < 0:
            raise ConfigError(
                f"{key} of data {name} must be a number, 0 or greater, but got {value!r}."
            )
    extra = {"progress": progress} if "progress" in inspect.signature(make).parameters else {}
    source = make(**args, **extra)
    if len(source.inputs) == 0:
        raise DataError(
            f"Data {name} with {args or 'its defaults'} is empty; ask for more samples."
        )
    return source


def _digits() -> Source:
    return Source("classification", "image", *bundled.digits(), _DIGITS)


def _digit_rows() -> Source:
    return Source("classification", "sequence", *bundled.digit_rows(), _DIGITS)


def _digit_strips(
    samples: int = 1000, shortest: int = 2, longest: int = 5, spacing: int = 4, seed: int = 0
) -> Strips:
    if not 1 <= shortest <= longest:
        raise ConfigError(
            "digit_strips needs shortest and longest of 1 or more, in this order, "
            f"but got {shortest} and {longest}."
        )
    strips = bundled.digit_strips(samples, shortest, longest, spacing, seed)
    return Strips(*strips, ("blank", *_DIGITS))


def _soft_digits(temperature: float = 2.0) -> Source:
    """The teacher that judges a digit has not learned from it: it was fitted on other folds."""
    if temperature == 0:
        raise ConfigError("temperature of data soft_digits must be greater than 0, but got 0.")
    return Source("distribution", "image", *bundled.soft_digits(temperature), _DIGITS)


def _two_moons(samples: int = 1000, noise: float = 0.15, seed: int = 0) -> Source:
    points = bundled.two_moons(samples, noise, seed)
    return Source("classification", "table", *points, ("upper", "lower"))


def _spirals(samples: int = 1500, noise: float = 0.05, classes: int = 3, seed: int = 0) -> Source:
    names = tuple(f"arm {arm}" for arm in range(max(classes, 1)))
    points = bundled.spirals(samples, noise, classes, seed)
    return Source("classification", "table", *points, names)


def _long_memory(samples: int = 2000, length: int = 60, symbols: int = 8, seed: int = 0) -> Source:
    if length < 1 or symbols < 2:
        raise ConfigError(
            f"long_memory needs length ≥ 1 and symbols ≥ 2, but got {length} and {symbols}."
        )
    names = tuple(f"symbol {symbol}" for symbol in range(symbols))
    sequences = bundled.long_memory(samples, length, symbols, seed)
    return Source("classification", "sequence", *sequences, names)


def _diabetes() -> Source:
    return Source("regression", "table", *bundled.diabetes())


def _mnist(limit: int = 0, progress: Progress | None = None) -> Source:
    return _images(downloads.mnist("MNIST", progress), limit)


def _fashion_mnist(limit: int = 0, progress: Progress | None = None) -> Source:
    return _images(downloads.mnist("FashionMNIST", progress), limit)


def _cifar10(limit: int = 0, progress: Progress | None = None) -> Source:
    return _images(downloads.cifar10(progress), limit)


def _images(read: downloads.Images, limit: int) -> Source:
    images, labels = (torch.from_numpy(x[: limit or None]) for x in (read.images, read.labels))
    return Source("classification", "image", images, labels, read.class_names)


def _fake_images(
    samples: int = 512, size: int = 32, channels: int = 3, classes: int = 10, seed: int = 0
) -> Source:
    if min(size, channels, classes) < 1:
        raise ConfigError(
            "fake_images needs size, channels and classes of 1 or more, "
            f"but got {size}, {channels} and {classes}."
        )
    names = tuple(f"class {i}" for i in range(classes))
    images = bundled.fake_images(samples, size, channels, classes, seed)
    return Source("classification", "image", *images, names)


_SOURCES: dict[str, Callable[..., Source | Strips]] = {
    "digits": _digits,
    "digit_rows": _digit_rows,
    "digit_strips": _digit_strips,
    "soft_digits": _soft_digits,
    "two_moons": _two_moons,
    "spirals": _spirals,
    "long_memory": _long_memory,
    "diabetes": _diabetes,
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "fake_images": _fake_images,
}
