"""A folder of images, one subfolder per class, read into memory at one size.

Links are not followed, and an image's size is read from its header before it is unpacked.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from inspector.errors import ConfigError, DataError
from inspector.training.own.images import fill, room
from inspector.training.samples import Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # none that starts a program
_MOST_FILES = 500_000
_MOST_PIXELS = 64_000_000
_SHOWN = 5
_DEPTH = 16

Progress = Callable[[str, float], None]


def load_folder(
    path: str, *, size: int = 64, grey: bool = False, progress: Progress | None = None
) -> Source:
    """Images of all subfolders, cropped at the centre and resized to ``size`` × ``size`` pixels.

    Args:
        grey: one channel instead of three.

    Raises:
        ConfigError: the size cannot be used.
        DataError: the folder has no classes, or images in it cannot be read; their paths are named.
    """
    if not 1 <= size <= 4096:
        raise ConfigError(f"size of images must be from 1 to 4096 pixels, but got {size}.")
    root = Path(path).expanduser()
    if not path or "://" in path or not root.is_dir():
        raise DataError(f"Expected a folder with one subfolder per class at {path!r}; check it.")
    root = root.resolve()
    classes, files, labels, links = find_images(root)
    channels = 1 if grey else 3
    images = room(
        (len(files), channels, size, size),
        f"of {size} pixels",
        "choose a smaller size, or write a Dataset of your own",
    )
    _read_all(files, images, progress)
    notes = (f"{links} links were not followed.",) if links else ()
    targets = torch.tensor(labels, dtype=torch.long)
    pixels = torch.from_numpy(images)
    return Source("classification", "image", pixels, targets, tuple(classes), (), notes)


def find_images(root: Path) -> tuple[list[str], list[Path], list[int], int]:
    """Class names, image paths, a label for each, and how many links were passed by.

    Raises:
        DataError: there are fewer than two classes, an empty class, or too many files.
    """
    with os.scandir(root) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    links = sum(entry.is_symlink() for entry in inside)
    classes = [
        entry.name
        for entry in inside
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
    ]
    if len(classes) < 2:
        raise DataError(
            f"Expected one subfolder per class, two or more, in {root}, but found "
            f"{', '.join(classes) or 'none'}; move the images into folders named like their class."
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        before = len(files)
        for found in _walk(root / name):
            if found is None:
                links += 1
                continue
            files.append(found)
            labels.append(label)
            if len(files) > _MOST_FILES:
                raise DataError(
                    f"More than {_MOST_FILES:,} images in {root}; write a Dataset of your own."
                )
        if len(files) == before:
            raise DataError(
                f"Expected images in {root / name}, but there are none "
                f"({', '.join(SUFFIXES)}); add some or remove the folder."
            )
    return classes, files, labels, links


def _walk(folder: Path, depth: int = 0) -> Iterator[Path | None]:
    """Images below a folder, and None for each link."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                yield None
            elif entry.is_dir(follow_symlinks=False):
                if depth < _DEPTH:
                    yield from _walk(Path(entry.path), depth + 1)
            elif entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(SUFFIXES):
                yield Path(entry.path)


def _read_all(files: list[Path], images: NDArray[np.uint8], progress: Progress | None) -> None:
    _, channels, size, _ = images.shape
    broken: list[str] = []

    def read(place: int) -> None:
        try:
            images[place] = read_image(files[place], size, channels)
        except Exception as error:  # decoders raise nearly anything on damaged files
            text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            broken.append(f"{files[place]} ({text.replace(str(files[place]), 'it')})")

    fill(read, len(files), partial(progress, "Reading images …") if progress else None)
    if broken:
        broken.sort()
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise DataError(
            f"{len(broken)} of {len(files)} images cannot be read: "
            f"{'; '.join(broken[:_SHOWN])}{more}; replace or remove them."
        )


def read_image(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """One image as [channels, size, size]; raises ValueError for one that is too large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged here, by number
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width} × {image.height} pixels are too many")
            image.draft("RGB", (size, size))
            turned = ImageOps.exif_transpose(image)
            fitted = ImageOps.fit(turned.convert("L" if channels == 1 else "RGB"), (size, size))
    pixels = np.asarray(fitted, np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
