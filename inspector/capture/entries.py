"""The numbers of module calls since the last step, in the order of the calls."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
from torch import Tensor

from inspector.capture.kernel import Kernel
from inspector.capture.transfer import Scalar

WIDTH = 8
_ROW_BYTES = WIDTH * 8

Rows = npt.NDArray[np.float64]


class Entries:
    """Rows of eight numbers: in one block of memory while the kernel makes them all, else lists."""

    def __init__(self) -> None:
        self._capacity = 64
        self._block = (ctypes.c_double * (WIDTH * self._capacity))()
        self._at = ctypes.addressof(self._block)
        self._count = 0
        self._lists: list[list[Scalar]] | None = None

    def __len__(self) -> int:
        return self._count if self._lists is None else len(self._lists)

    def measure(
        self, kernel: Kernel, column: int, tensor: Tensor, bounds: tuple[float, float] | None
    ) -> None:
        """Adds the row of an output that the kernel can read."""
        if self._lists is not None:
            self._lists.append([*kernel.output(column, tensor, bounds)])
            return
        if self._count == self._capacity:
            self._grow()
        kernel.output_at(column, tensor, bounds, self._at + self._count * _ROW_BYTES)
        self._count += 1

    def append(self, row: list[Scalar]) -> None:
        """Adds a row whose numbers may be on a device."""
        self._as_lists().append(row)

    def keep_from(self, first: int) -> None:
        """Forgets the first rows."""
        if first:
            self._lists = self._as_lists()[first:]

    def keep_to(self, count: int) -> None:
        """Forgets what came after the first ``count`` rows."""
        if self._lists is None:
            self._count = min(self._count, count)
        else:
            del self._lists[count:]

    def take(self) -> Rows | list[list[Scalar]]:
        """Hands over all rows and is empty again."""
        if self._lists is None:
            size = self._count * WIDTH
            rows: Rows | list[list[Scalar]] = np.array(self._block[:size]).reshape(-1, WIDTH)
        else:
            rows = self._lists
        self._lists, self._count = None, 0
        return rows

    def _as_lists(self) -> list[list[Scalar]]:
        if self._lists is None:
            size = self._count * WIDTH
            flat = self._block[:size]
            self._lists = [list(flat[i : i + WIDTH]) for i in range(0, size, WIDTH)]
        return self._lists

    def _grow(self) -> None:
        larger = (ctypes.c_double * (WIDTH * self._capacity * 2))()
        ctypes.memmove(larger, self._block, ctypes.sizeof(self._block))
        self._block, self._at = larger, ctypes.addressof(larger)
        self._capacity *= 2
