"""Data sets of ``torchvision.datasets``: built by name, downloaded by torchvision, read as images.

Files are kept in ``torchvision/NAME`` below ``TORCH_INSPECTOR_DATA`` (see :mod:`.downloads`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from inspector.errors import ConfigError, DataError
from inspector.training import downloads
from inspector.training.downloads import Progress
from inspector.training.own.images import fill, room
from inspector.training.samples import Source
from inspector.training.torchvision_sets import (
    PREFIX,
    check,
    constructor,
    find,
    no_classes,
    offered,
)

_PROBED = 16
_downloading = threading.RLock()


def load_torchvision(name: str, args: dict[str, Any], progress: Progress | None = None) -> Source:
    """The samples of ``torchvision.datasets.NAME`` in memory: uint8 images and their classes.

    Args:
        args: of the constructor, and ``pixels``, ``limit`` and ``root``.

    Raises:
        ConfigError: torchvision has no such set, or an argument is missing or cannot be used.
        DataError: it can be neither found nor downloaded, is damaged, or its targets are not
            class indices.
    """
    cls = find(name)
    check(name, args, offered(name))
    given = {key: value for key, value in args.items() if key not in ("pixels", "limit", "root")}
    usual = downloads.folder() / "torchvision" / name
    root = Path(args["root"]).expanduser() if args.get("root") else usual
    dataset = _build(cls, name, root, given, progress)
    if len(dataset) == 0:
        raise DataError(f"Expected samples in {PREFIX}{name}, but it is empty; check {root}.")
    count = min(args.get("limit") or len(dataset), len(dataset))
    rows = np.linspace(0, len(dataset) - 1, count).round().astype(np.int64).tolist()
    return _read(dataset, rows, name, int(args.get("pixels", 0)), progress)


def _build(
    cls: type[Any], name: str, root: Path, given: dict[str, Any], progress: Progress | None
) -> Any:
    fetches = "download" in constructor(cls)
    extra = {"download": True} if fetches else {}
    data = f"{PREFIX}{name}"
    missed: list[_Missed] = []
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _reporting(progress), _noting(missed):
            return cls(str(root), **extra, **given)
    except ImportError as error:
        missing = error.name or str(error)
        raise DataError(
            f"{data} cannot be read without the package {missing}; pip install {missing}."
        ) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) and "Unknown value" not in str(error):
            raise _damaged(data, root, error) from error
        raise ConfigError(f"{data} refuses its arguments: {_first(error)}.") from error
    except (OSError, RuntimeError) as error:
        if missed:
            raise DataError(missed[-1].sentence(data)) from error
        if fetches:
            raise DataError(
                f"Cannot download {data} ({downloads.reason(error)}); connect to the internet, or "
                f"put its files in {root}, or choose data that needs no download, such as digits."
            ) from error
        raise DataError(
            f"torchvision does not download {name}; put its files in {root} ({_first(error)})."
        ) from error
    except Exception as error:  # what a damaged archive or pickle raises is anybody's guess
        raise _damaged(data, root, error) from error


@dataclass(frozen=True, slots=True)
class _Missed:
    """A file that could not be downloaded."""

    url: str
    file: Path
    why: str

    def sentence(self, data: str) -> str:
        host = urlsplit(self.url).hostname
        return (
            f"Cannot download {self.file.name} for {data} from {host}: {self.why}; connect to the "
            f"internet, or put that file in {self.file.parent}, or choose data that needs no "
            "download, such as digits."
        )


def _damaged(data: str, root: Path, error: Exception) -> DataError:
    return DataError(
        f"{data} cannot be read from {root} ({_first(error)}); where its files are damaged, delete "
        "them, and they will be downloaded again."
    )


def _first(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:300]


def _read(
    dataset: Any, rows: list[int], name: str, pixels: int, progress: Progress | None
) -> Source:
    probed = rows[:: max(1, len(rows) // _PROBED)]
    first = [_sample(dataset, row, name) for row in probed]
    grey = all(image.mode in ("1", "L") for image, _ in first)
    sizes = {image.size for image, _ in first}
    if not pixels and len(sizes) > 1:
        raise ConfigError(
            f"Images of {PREFIX}{name} differ in size, such as "
            f"{' and '.join(f'{w}×{h}' for w, h in sorted(sizes)[:2])}; set pixels in data_args, "
            "such as 64, to bring them to one."
        )
    width, height = (pixels, pixels) if pixels else first[0][0].size
    channels = 1 if grey else 3
    images = room(
        (len(rows), channels, height, width),
        f"of {PREFIX}{name}",
        "set a smaller pixels, or a limit",
    )
    labels = np.empty(len(rows), np.int64)

    def take(place: int) -> None:
        image, labels[place] = _sample(dataset, rows[place], name)
        images[place] = _array(image, (width, height), channels, name, rows[place], pixels)

    fill(take, len(rows), partial(progress, f"Reading {name} …") if progress else None)
    least = int(labels.min())
    if least < 0:
        raise DataError(no_classes(name, f"{least} where no class is known"))
    return Source(
        "classification",
        "image",
        torch.from_numpy(images),
        torch.from_numpy(labels),
        _names(dataset, int(labels.max())),
    )


def _sample(dataset: Any, row: int, name: str) -> tuple[Image.Image, int]:
    """An image and its class.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        sample = dataset[row]
    except Exception as error:
        raise DataError(f"Row {row} of {PREFIX}{name} cannot be read ({_first(error)}).") from error
    image, target = sample if isinstance(sample, tuple) and len(sample) == 2 else (sample, None)
    if not isinstance(image, Image.Image):
        raise DataError(no_classes(name, f"beside a {type(image).__name__}, not an image"))
    number = np.asarray(target)
    if number.ndim or number.dtype.kind not in "iu":
        raise DataError(no_classes(name, f"like {target!r:.60}"))
    return image, int(number)


def _array(
    image: Image.Image, size: tuple[int, int], channels: int, name: str, row: int, pixels: int
) -> NDArray[np.uint8]:
    """One image as [channels, height, width]."""
    image = image.convert("L" if channels == 1 else "RGB")
    if pixels:
        image = ImageOps.fit(image, size)
    elif image.size != size:
        raise ConfigError(
            f"Row {row} of {PREFIX}{name} is {image.width}×{image.height} pixels, others are "
            f"{size[0]}×{size[1]}; set pixels in data_args, such as 64, to bring them to one."
        )
    values = np.asarray(image, np.uint8)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _names(dataset: Any, highest: int) -> tuple[str, ...]:
    """What the set calls its classes; numbers where it does not say."""
    for attribute in ("classes", "categories"):
        names = getattr(dataset, attribute, None)
        if isinstance(names, (list, tuple)) and len(names) > highest:
            words = (one if isinstance(one, str) else ", ".join(map(str, one)) for one in names)
            return tuple(words)
    return tuple(str(label) for label in range(highest + 1))


@contextlib.contextmanager
def _reporting(progress: Progress | None) -> Iterator[None]:
    """Lets torchvision's downloads tell how far they are; files come whole or not at all."""
    from torchvision.datasets import utils

    original = getattr(utils, "_urlretrieve", None)
    if original is None:
        yield
        return

    def retrieve(url: str, filename: str | Path, chunk_size: int = 0) -> None:  # noqa: ARG001
        request = urllib.request.Request(url, headers={"User-Agent": utils.USER_AGENT})
        part = Path(f"{filename}.{os.getpid()}.part")
        try:
            downloads.receive(request, part, progress)
            part.replace(filename)
        finally:
            part.unlink(missing_ok=True)

    with _downloading:
        utils._urlretrieve = retrieve
        try:
            yield
        finally:
            utils._urlretrieve = original


@contextlib.contextmanager
def _noting(missed: list[_Missed]) -> Iterator[None]:
    """Notes the files that do not come, until one does (torchvision tries several servers).

    A few sets download past this function: nothing is noted of theirs.
    """
    from torchvision.datasets import utils

    original = utils.download_url

    def download(url: str, root: Any, filename: Any = None, *args: Any, **more: Any) -> None:
        try:
            original(url, root, filename, *args, **more)
            missed.clear()
        except Exception as error:
            file = Path(root).expanduser() / (filename or url.rsplit("/", 1)[-1])
            missed.append(_Missed(url, file, downloads.reason(error)))
            raise

    with _downloading:
        utils.download_url = download
        try:
            yield
        finally:
            utils.download_url = original
