"""The numbers of module calls since the last step, in the order of the calls.

A row has eight numbers: column, count, sum, norm or variance, zeros, saturated, non-finite, and
whether the fourth is a variance (see :class:`inspector.capture.activations.Entry`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inspector.capture.transfer import Scalar

WIDTH = 8

Rows = npt.NDArray[np.float64]


class Entries:
    """Rows as lists, whose numbers may be on a device.

    Attributes:
        listed: whether the rows are lists now.
    """

    listed = True

    def __init__(self) -> None:
        self._rows: list[list[Scalar]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: list[float]) -> None:
        """Adds a row of plain numbers."""
        self._rows.append([*row])

    def append(self, row: list[Scalar]) -> None:
        """Adds a row whose numbers may be on a device."""
        self._rows.append(row)

    def keep_from(self, first: int) -> None:
        """Forgets the first rows."""
        del self._rows[:first]

    def keep_to(self, count: int) -> None:
        """Forgets what came after the first ``count`` rows."""
        del self._rows[count:]

    def take(self) -> Rows | list[list[Scalar]]:
        """Hands over all rows and is empty again."""
        rows, self._rows = self._rows, []
        return rows


class TapedEntries(Entries):
    """Rows on the tape that the hooks in C write; lists from the first device number on."""

    def __init__(self, tape: Any) -> None:
        super().__init__()
        self.listed = False
        self._tape = tape

    def __len__(self) -> int:
        return len(self._rows) if self.listed else int(self._tape.count)

    def add(self, row: list[float]) -> None:
        if self.listed:
            super().add(row)
        else:
            self._tape.add(*row)

    def append(self, row: list[Scalar]) -> None:
        if not self.listed:
            self._rows = self._taped().tolist()
            self.listed, self._tape.open = True, 0
        self._rows.append(row)

    def keep_from(self, first: int) -> None:
        if self.listed:
            super().keep_from(first)
        else:
            self._tape.keep(first, self._tape.count, 0, self._tape.norm_count)

    def keep_to(self, count: int) -> None:
        if self.listed:
            super().keep_to(count)
        else:
            self._tape.keep(0, count, 0, self._tape.norm_count)

    def take(self) -> Rows | list[list[Scalar]]:
        if not self.listed:
            return self._taped()
        self.listed = False
        return super().take()

    def _taped(self) -> Rows:
        return np.frombuffer(self._tape.take_rows()).reshape(-1, WIDTH)


class Gradients:
    """Column and norm of every output gradient: on the tape, and as lists where on a device."""

    def __init__(self, tape: Any = None) -> None:
        self._tape = tape
        self.pairs: list[list[Scalar]] = []

    def append(self, pair: list[Scalar]) -> None:
        self.pairs.append(pair)
        if self._tape is not None:
            self._tape.open = 0

    @property
    def mark(self) -> tuple[int, int]:
        """How many there are of both kinds."""
        return (0 if self._tape is None else self._tape.norm_count), len(self.pairs)

    def keep_from(self, mark: tuple[int, int]) -> None:
        """Forgets what came before a mark."""
        del self.pairs[: mark[1]]
        if self._tape is not None:
            self._tape.keep(0, self._tape.count, mark[0], self._tape.norm_count)

    def keep_to(self, mark: tuple[int, int]) -> None:
        """Forgets what came after a mark."""
        del self.pairs[mark[1] :]
        if self._tape is not None:
            self._tape.keep(0, self._tape.count, 0, mark[0])

    def take(self) -> tuple[Rows, list[list[Scalar]]]:
        """Hands over both kinds and is empty again."""
        pairs, self.pairs = self.pairs, []
        taped = b"" if self._tape is None else self._tape.take_norms()
        return np.frombuffer(taped).reshape(-1, 2), pairs
