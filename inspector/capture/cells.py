"""What is measured of each parameter in a step: seven rows, one number for each parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inspector.capture.entries import Rows
from inspector.capture.transfer import ABSENT, Scalar

NORM, LARGEST, NONFINITE, RECEIVED, BEFORE, CHANGE, AFTER = range(7)


class ParameterCells:
    """Rows of plain numbers in one block, which the extension writes into; lists of device
    scalars beside it until they have landed. ``ABSENT`` where there is none.

    Attributes:
        at: addresses of the rows.
    """

    __slots__ = ("_block", "_lists", "at", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._block = np.full((7, size), ABSENT)
        self._lists: dict[int, list[Scalar]] = {}
        start, width = self._block.ctypes.data, 8 * size
        self.at = tuple(start + row * width for row in range(7))

    def put(self, row: int, values: Sequence[Scalar]) -> None:
        """Replaces a row."""
        self._lists[row] = list(values)

    def written(self, *rows: int) -> None:
        """The extension has written these rows into the block."""
        if self._lists:
            for row in rows:
                self._lists.pop(row, None)

    def clear(self, *rows: int) -> None:
        """Nothing was measured."""
        self.written(*rows)
        for row in rows:
            self._block[row] = ABSENT

    @property
    def lists(self) -> list[list[Scalar]]:
        """The rows whose numbers may be on a device."""
        return list(self._lists.values())

    def row(self, row: int) -> list[Scalar]:
        return self._lists[row] if row in self._lists else self._block[row].tolist()

    @property
    def here(self) -> bool:
        """Whether all numbers are in the block."""
        return not self._lists

    def table(self) -> Rows:
        """All rows, once nothing is on a device any more."""
        for row, values in self._lists.items():
            self._block[row] = values
        self._lists.clear()
        return self._block

    def place(self, part: ParameterCells, positions: Sequence[int]) -> None:
        """Takes over the rows of some of the parameters."""
        if not part._lists and not self._lists:
            self._block[:, list(positions)] = part._block
            return
        for number in range(7):
            whole = self.row(number)
            for position, value in zip(positions, part.row(number), strict=True):
                whole[position] = value
            self._lists[number] = whole
