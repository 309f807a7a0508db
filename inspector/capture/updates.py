"""How far the optimizer moved each parameter: ‖Δw‖ / ‖w‖, and the weight norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.capture import native
from inspector.capture.cells import AFTER, BEFORE, CHANGE, ParameterCells
from inspector.capture.kernel import F32, Sizes, fits, load
from inspector.capture.reductions import is_sharded, local, measurable, norms, spread
from inspector.capture.transfer import Scalar


class UpdateProbe:
    """Keeps a copy of the parameters during ``optimizer.step()``; the memory is reused."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._size = len(parameters)
        self._positions = [i for i, p in enumerate(parameters) if measurable(p)]
        self._given = tuple(parameters[i] for i in self._positions)
        self._sharded = any(map(is_sharded, self._given))
        self._parameters = tuple(map(local, self._given))
        self._copies: list[Tensor] = []
        self._kernel = load() if all(fits(p) for p in self._parameters) else None
        self._sizes = Sizes(self._parameters)
        self._block: F32 | None = None
        self._at = 0
        self._begun = ""
        whole = self._kernel is not None and len(self._positions) == self._size
        self._native: Any = native.load() if whole else None

    def before_step(self, cells: ParameterCells) -> None:
        """Copies the parameters; measures their norms."""
        if self._sharded:
            self._parameters = tuple(map(local, self._given))
        if self._native is not None:
            sizes = self._sizes.address
            if self._native.keep(self._parameters, sizes, self._copied(), cells.at[BEFORE]):
                cells.written(BEFORE)
                self._begun = "native"
                return
            self._native = None
        if self._kernel is not None and all(fits(p) for p in self._parameters):
            self._sizes = Sizes(self._parameters)
            self._block, self._begun = None, "kernel"
            found = self._kernel.keep(self._parameters, self._sizes, self._copied())
            self._put(cells, BEFORE, found)
            return
        self._kernel, self._begun = None, "torch"
        with torch.no_grad():
            if not self._copies:
                self._copies = [_same_layout(p) for p in self._parameters]
            if self._copies:
                torch._foreach_copy_(self._copies, self._parameters)
            self._put(cells, BEFORE, norms(self._copies))

    @property
    def native(self) -> bool:
        """Whether the extension can do all of this, as far as is known."""
        return self._native is not None

    @property
    def room(self) -> tuple[int, int]:
        """Addresses of the numbers of elements, and of the room for the copies."""
        return self._sizes.address, self._copied()

    def resume(self, copied: bool) -> None:
        """The extension has done the steps so far, and has ``copied`` the parameters in this."""
        self._begun = "native" if copied else ""

    def after_step(self, cells: ParameterCells) -> None:
        """Measures the change; nothing when :meth:`before_step` was not called for this step."""
        begun, self._begun = self._begun, ""
        if begun == "native":
            block, sizes = self._copied(), self._sizes.address
            rows = cells.at[CHANGE], cells.at[AFTER]
            if self._native.compare(self._parameters, sizes, block, *rows):
                cells.written(CHANGE, AFTER)
            else:  # the step has replaced them
                cells.clear(CHANGE, AFTER)
        elif begun == "kernel":
            assert self._kernel is not None
            moved, now = self._kernel.compare(self._parameters, self._sizes, self._copied())
            self._put(cells, CHANGE, moved)
            self._put(cells, AFTER, now)
        elif begun == "torch":
            with torch.no_grad():
                if self._copies:
                    torch._foreach_sub_(self._copies, self._parameters)
                self._put(cells, CHANGE, norms(self._copies))
                self._put(cells, AFTER, norms([p.detach() for p in self._parameters]))
        else:
            cells.clear(BEFORE, CHANGE, AFTER)

    def _copied(self) -> int:
        """Address of the room for the copies."""
        if self._block is None:  # NumPy asks for huge pages, which are quicker to walk
            self._block = np.empty(sum(self._sizes.numbers), np.float32)
            self._at = self._block.ctypes.data
        return self._at

    def _put(self, cells: ParameterCells, row: int, values: Sequence[Scalar]) -> None:
        cells.put(row, spread(values, self._positions, self._size))


def _same_layout(parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter, requires_grad=False)
