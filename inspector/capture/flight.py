"""A finished step whose numbers may still be on their way from the device."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from inspector.capture import native
from inspector.capture.activations import combine
from inspector.capture.cells import AFTER, NONFINITE, ParameterCells
from inspector.capture.entries import Rows
from inspector.capture.histograms import HistogramBatch
from inspector.capture.kernel import load
from inspector.capture.measured import F32, Measured, ModuleColumns, Table, with_absent
from inspector.capture.nonfinite import Onset, bad_loss, first_bad, first_nonfinite
from inspector.capture.transfer import ABSENT, Scalar, Shipment
from inspector.quantities import SeriesKey

_NO_PAIRS: Rows = np.empty((0, 2))


@dataclass(slots=True)
class Flight:
    """Raw cells of one step, and how to read them once they have landed."""

    step: int
    full: bool
    remote: bool
    scalars: dict[str, Scalar] = field(default_factory=dict)
    modules: Table | None = None
    first_bad: tuple[int, int] | None = None
    entries: Rows | list[list[Scalar]] = field(default_factory=list)
    output_gradients: tuple[Rows, list[list[Scalar]]] = (_NO_PAIRS, [])
    parameters: ParameterCells | None = None
    parameter_keys: tuple[SeriesKey, ...] = ()
    parameter_names: tuple[str, ...] = ()
    owners: tuple[str | None, ...] = ()
    columns: ModuleColumns | None = None
    module_types: tuple[tuple[str, str], ...] = ()
    scale: Scalar = 1.0
    received_scale: Scalar = 1.0
    found_inf: Scalar = 0.0
    scaled: bool = False
    careful: set[int] = field(default_factory=set)
    bad_outputs: float = 0.0
    histograms: HistogramBatch | None = None
    _factors: list[Scalar] = field(default_factory=list)
    _values: list[Scalar] = field(default_factory=list)
    _shipment: Shipment | None = None

    def put(self, name: str, value: Scalar | None) -> None:
        if value is not None:
            self.scalars[name] = value

    def depart(self) -> None:
        """Starts the one copy to the host, where numbers are on a device."""
        self._factors = [self.scale, self.received_scale, self.found_inf]
        if self.histograms is not None:
            self.histograms.depart()
        if self.remote:
            self._values = list(self.scalars.values())
            cells = [self._values, self._factors, *self.output_gradients[1]]
            if isinstance(self.entries, list):
                cells += self.entries
            if self.parameters is not None:
                cells += self.parameters.lists
            self._shipment = Shipment(cells)

    def ready(self) -> bool:
        return self._shipment is None or self._shipment.ready()

    def land(self) -> Measured:
        """The step's numbers; waits for the device if :meth:`ready` is False."""
        if self._shipment is not None:
            self._shipment.land()
            self.scalars = dict(zip(self.scalars, self._values, strict=True))
        scalars: dict[str, float] = self.scalars  # type: ignore[assignment]
        if self._tensors():
            scalars = {name: float(value) for name, value in scalars.items()}
        measured = Measured(self.step, self.full, scalars)
        scale, received_scale, found_inf = (float(factor) for factor in self._factors)
        if self.histograms is not None:
            measured.histograms = list(self.histograms.land(scale))
        nonfinite = 0.0
        if self.scaled:
            scalars["grad_scale"] = scale
        if found_inf > 0:
            measured.skipped = "GradScaler found non-finite gradients"
        if self.modules is not None:
            measured.modules = self.modules
            nonfinite += self.bad_outputs
        elif self.columns is not None and len(self.entries):
            nonfinite += self._add_modules(measured, scale)
        if self.parameters is not None:
            nonfinite += self._add_parameters(measured, scale, received_scale)
        if self.full:
            scalars["nonfinite"] = nonfinite
        measured.onset = self._onset(scalars)
        return measured

    def _tensors(self) -> bool:
        return any([isinstance(value, Tensor) for value in self.scalars.values()])  # noqa: C419

    def reduce_modules(self, tape: Any, columns: ModuleColumns) -> None:
        """Takes what the hooks in C have written down, while it is there; CPU only."""
        kernel = load()
        assert kernel is not None and isinstance(self.scale, float)
        values, at, work = kernel.room(columns.size)
        total, column, count = tape.reduce(self.scale, columns.size, work, at)
        self.bad_outputs = total
        if total > 0:
            self.first_bad = int(column), int(count)
        self.modules = columns.select(values)

    def _add_modules(self, measured: Measured, scale: float) -> float:
        assert self.columns is not None
        kernel = load()
        if kernel is not None and isinstance(self.entries, np.ndarray):
            gradients, others = self.output_gradients
            if others:
                gradients = np.concatenate((gradients, np.array(others, dtype=np.float64)))
            size = self.columns.size
            values, self.bad_outputs = kernel.modules(self.entries, gradients, scale, size)
            measured.modules = self.columns.select(values)
            return self.bad_outputs
        statistics = combine(self.entries, self.columns.size)
        self.careful = statistics.careful
        measured.modules = self.columns.table(statistics, self._output_gradients(scale))
        self.bad_outputs = float(statistics.nonfinite.sum())
        return self.bad_outputs

    def _output_gradients(self, scale: float) -> np.ndarray:
        assert self.columns is not None
        squares = np.zeros(self.columns.size)
        seen = np.zeros(self.columns.size, dtype=bool)
        taped, others = self.output_gradients
        for column, norm in (*taped.tolist(), *others):
            squares[int(column)] += float(norm) ** 2
            seen[int(column)] = True
        return np.where(seen, np.sqrt(squares) / scale, ABSENT)

    def _add_parameters(self, measured: Measured, scale: float, received_scale: float) -> float:
        assert self.parameters is not None
        kernel, extension = load(), native.load()
        if kernel is not None and extension is not None and self.parameters.here:
            size = self.parameters.size
            values, at, _ = kernel.room(-size)
            cells = self.parameters.at[0]
            totals = extension.reduce(cells, size, scale, received_scale, at)
        else:
            reduce = parameter_rows if kernel is None else kernel.parameters
            values, totals = reduce(self.parameters.table(), scale, received_scale)
        measured.parameters = Table(self.parameter_keys, values)
        scalars = measured.scalars
        unclipped, received, before, change, nonfinite = totals
        if unclipped != ABSENT:
            scalars["total_grad_norm"] = unclipped / scale
        if received != ABSENT:
            scalars["clipped_grad_norm"] = received / received_scale
            if unclipped != ABSENT:
                shrunk = unclipped / scale > received / received_scale * (1 + 1e-5)
                scalars["clipped"] = float(shrunk)
        if before > 0 and change != ABSENT:
            scalars["total_update_ratio"] = change / before
        return float(nonfinite)

    def _onset(self, scalars: dict[str, float]) -> Onset | None:
        if self.first_bad is not None:
            path, type_name = self.module_types[self.first_bad[0]]
            return Onset("activation", path, type_name, count=self.first_bad[1])
        if self.bad_outputs > 0:
            entry = next(e for e in self.entries if float(e[6]) > 0)
            path, type_name = self.module_types[int(entry[0])]
            return Onset("activation", path, type_name, count=int(entry[6]))
        if (onset := bad_loss(scalars.get("loss"))) is not None:
            return onset
        if self.parameters is None:
            return None
        cells = self.parameters
        if not self.scaled and scalars.get("nonfinite"):
            bad = first_bad(cells.row(NONFINITE))  # type: ignore[arg-type]
            if bad is not None:
                return Onset(
                    "gradient", self.owners[bad], "", self.parameter_names[bad],
                    int(cells.row(NONFINITE)[bad]),
                )  # fmt: skip
        ratio = scalars.get("total_update_ratio", 0.0)
        if not math.isfinite(ratio) and (bad := first_nonfinite(cells.row(AFTER))) is not None:  # type: ignore[arg-type]
            return Onset("parameter", self.owners[bad], "", self.parameter_names[bad], 1)
        return None


def parameter_rows(cells: Rows, scale: float, received_scale: float) -> tuple[F32, list[float]]:
    """What :meth:`Kernel.parameters` does, by numpy."""
    absent = cells == ABSENT
    totals = [
        ABSENT if absent[row].all() else float(np.sqrt(np.square(cells[row][~absent[row]]).sum()))
        for row in (0, 3, 4, 5)
    ]
    totals.append(float(cells[2][~absent[2]].sum()))
    with np.errstate(all="ignore"):
        ratio = cells[5] / cells[4]
        first = (cells[0] / scale, cells[1] / scale, cells[2], cells[3] / received_scale)
        values = np.concatenate((*first, cells[6], ratio))
    no_ratio = absent[5] | absent[4] | (cells[4] == 0)
    present = ~np.concatenate((absent[0:4].ravel(), absent[6], no_ratio))
    return with_absent(values, present), totals
