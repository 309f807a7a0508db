"""The end of a fully measured step whose numbers are all at hand, without a detour.

That is: everything on the CPU, one optimizer, no loss scale, no histograms, and no number that the
extension could not take. :class:`inspector.capture.flight.Flight` does the same for all steps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from inspector.capture.cells import AFTER, NONFINITE, ParameterCells
from inspector.capture.measured import Measured, ModuleColumns, Table
from inspector.capture.nonfinite import Onset, bad_loss, first_bad, first_nonfinite
from inspector.capture.parameters import ParameterSet
from inspector.capture.transfer import ABSENT, Scalar
from inspector.quantities import SeriesKey

_NOTHING = np.empty((0, 8))


class PlainStep:
    """Reduces what the hooks have written down to the step's tables and totals."""

    def __init__(
        self, extension: Any, parameters: ParameterSet, keys: tuple[SeriesKey, ...]
    ) -> None:
        self._reduce = extension.reduce
        self._parameters = parameters
        self._size = len(parameters.tensors)
        self._keys = keys
        self._values = np.empty(6 * self._size, np.float32)
        self._at = self._values.ctypes.data
        self._columns: ModuleColumns | None = None
        self._outputs = self._work = self._values
        self._places = (0, 0)

    def finish(
        self,
        step: int,
        cells: ParameterCells,
        tape: Any,
        columns: ModuleColumns,
        types: tuple[tuple[str, str], ...],
    ) -> Landed:
        """Fills in tables and totals."""
        if columns is not self._columns:
            self._columns = columns
            self._outputs = np.empty(6 * columns.size, np.float32)
            self._work = np.empty(16 * columns.size, np.float32)
            self._places = self._work.ctypes.data, self._outputs.ctypes.data
        outputs = tape.reduce(1.0, columns.size, *self._places)
        unclipped, received, before, change, nonfinite = self._reduce(
            cells.at[0], self._size, 1.0, 1.0, self._at
        )
        modules = columns.select(self._outputs)
        measured = Measured(step, True, {}, Table(self._keys, self._values), modules)
        scalars = measured.scalars
        if unclipped != ABSENT:
            scalars["total_grad_norm"] = unclipped
        if received != ABSENT:
            scalars["clipped_grad_norm"] = received
            if unclipped != ABSENT:
                scalars["clipped"] = 1.0 if unclipped > received * (1 + 1e-5) else 0.0
        if before > 0 and change != ABSENT:
            scalars["total_update_ratio"] = change / before
        scalars["nonfinite"] = nonfinite + outputs[0]
        found = None
        if outputs[0] > 0:
            path, type_name = types[int(outputs[1])]
            found = Onset("activation", path, type_name, count=int(outputs[2]))
        elif nonfinite or not math.isfinite(scalars.get("total_update_ratio", 0.0)):
            found = self._in_parameters(cells, bool(nonfinite))
        return Landed(measured, found)

    def _in_parameters(self, cells: ParameterCells, gradients: bool) -> Onset | None:
        owners, names = self._parameters.owners, self._parameters.names
        if gradients:
            counts: list[Any] = cells.row(NONFINITE)
            if (bad := first_bad(counts)) is not None:
                return Onset("gradient", owners[bad], "", names[bad], int(counts[bad]))
        after: list[Any] = cells.row(AFTER)
        if (bad := first_nonfinite(after)) is not None:
            return Onset("parameter", owners[bad], "", names[bad], 1)
        return None


class Landed:
    """What a :class:`Flight` is, for a step whose numbers are here already."""

    __slots__ = ("_found", "careful", "entries", "measured")

    def __init__(self, measured: Measured, found: Onset | None) -> None:
        self.measured = measured
        self._found = found
        self.entries = _NOTHING
        self.careful: set[int] = set()

    def put(self, name: str, value: Scalar | None) -> None:
        if value is not None:
            self.measured.scalars[name] = float(value)

    def depart(self) -> None:
        """Nothing is on a device."""

    def ready(self) -> bool:
        return True

    def land(self) -> Measured:
        """The step's numbers; what is not finite in its outputs comes first, then the loss."""
        measured, found = self.measured, self._found
        if found is None or found.where != "activation":
            found = bad_loss(measured.scalars.get("loss")) or found
        measured.onset = found
        return measured
