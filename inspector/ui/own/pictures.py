"""Small pictures as people see pixels: enlarged by whole numbers, never blurred."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAP = 6


def enlarged(picture: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """[height, width, 3] about so many pixels high; larger pictures stay as they are."""
    times = max(1, height // picture.shape[0])
    return picture.repeat(times, 0).repeat(times, 1)


def in_a_row(pictures: list[NDArray[np.uint8]], height: int) -> NDArray[np.uint8]:
    """Enlarged pictures beside each other, transparent between them."""
    tiles = []
    for picture in pictures:
        large = enlarged(picture, height)
        opaque = np.full((*large.shape[:2], 1), 255, np.uint8)
        tiles.append(np.pad(np.concatenate([large, opaque], axis=2), ((0, 0), (0, GAP), (0, 0))))
    return np.concatenate(tiles, axis=1)[:, :-GAP]
