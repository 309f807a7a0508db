"""The bytes of a live frame: a JSON header, then float64 steps and float32 planes.

::

    uint32 little-endian   length of the header, padded with spaces so that arrays start at
                           a multiple of 8 bytes
    header                 JSON; every array in it is [byte offset from the start of the
                           arrays, rows, columns]
    arrays                 little-endian, each padded to a multiple of 8 bytes
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from inspector.views.live import Update

VERSION = 1


class Frame:
    """Collects arrays beside the header that names them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def update(self, update: Update) -> dict[str, Any]:
        """Adds a buffer's update; returns its place in the header."""
        fields: dict[str, Any] = {
            "start": update.start,
            "steps": self._add(update.steps.astype("<f8")[None, :]),
            "planes": self._add(update.planes.astype("<f4")),
        }
        if update.start == 0:
            fields["subjects"] = update.subjects
            fields["folded"] = update.folded
        return fields

    def pack(self, header: dict[str, Any]) -> bytes:
        """The frame's bytes."""
        text = json.dumps({"version": VERSION, **header}, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 4) % 8)
        return b"".join([len(text).to_bytes(4, "little"), text, *self._parts])

    def _add(self, array: np.ndarray[Any, Any]) -> list[int]:
        place = [self._size, *array.shape]
        content = array.tobytes()
        content += b"\0" * (-len(content) % 8)
        self._parts.append(content)
        self._size += len(content)
        return place
