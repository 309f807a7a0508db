"""Images in memory: room for them, filled in by several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from inspector.errors import DataError
from inspector.training.own.files import MEMORY

_BLOCK = 256


def room(shape: tuple[int, int, int, int], what: str, otherwise: str) -> NDArray[np.uint8]:
    """Memory for images [n, channels, height, width].

    Args:
        what, otherwise: the images and what can be done instead, in the message.

    Raises:
        DataError: they would need more than fits.
    """
    needed = int(np.prod(shape, dtype=np.int64))
    if needed > MEMORY:
        raise DataError(
            f"{shape[0]:,} images {what} need {needed:,} bytes, more than the {MEMORY:,} that fit; "
            f"{otherwise}."
        )
    return np.empty(shape, np.uint8)


def fill(
    take: Callable[[int], object], count: int, progress: Callable[[float], None] | None
) -> None:
    """Calls ``take`` for each place below ``count``, several at once; its exceptions come out.

    Args:
        progress: told the share that is done.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, _BLOCK):
            end = min(start + _BLOCK, count)
            list(pool.map(take, range(start, end)))
            if progress:
                progress(end / count)
