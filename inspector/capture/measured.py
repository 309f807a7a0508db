"""The numbers of one finished step, as they leave the capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inspector.capture.activations import ModuleStatistics
from inspector.capture.histograms import Histogram
from inspector.capture.nonfinite import Onset
from inspector.quantities import ABSENT_BITS, SeriesKey

F32 = npt.NDArray[np.float32]

PARAMETER_QUANTITIES = (
    "grad_norm",
    "grad_max",
    "grad_nonfinite",
    "grad_norm_clipped",
    "weight_norm",
    "update_ratio",
)
MODULE_QUANTITIES = (
    "activation_mean",
    "activation_std",
    "activation_zeros",
    "activation_saturated",
    "activation_nonfinite",
    "output_grad_norm",
)


@dataclass(slots=True)
class Table:
    """A row of a group, or a row for each of some steps: float32 of the series ``keys``.

    Where a quantity could not be had in this step, the value has the bits ``ABSENT_BITS``. The
    keys are the same tuple object in every step, as long as nothing joins. The memory of the
    values is used again for the next step.
    """

    keys: tuple[SeriesKey, ...]
    values: F32

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """False where the quantity could not be had."""
        return np.not_equal(self.values.view(np.uint32), ABSENT_BITS)

    def holds(self, subject: str) -> bool:
        """Whether anything of this module or parameter could be had."""
        pairs = zip(self.keys, self.present, strict=True)
        return any(present and key.subject == subject for key, present in pairs)


def with_absent(values: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]) -> F32:
    """The values as float32, with ``ABSENT_BITS`` where they are not present."""
    result = values.astype(np.float32)
    result.view(np.uint32)[~present] = ABSENT_BITS
    return result


@dataclass(slots=True)
class Measured:
    """A step's numbers: ``scalars`` by quantity, and the tables of a fully measured step."""

    step: int
    full: bool
    scalars: dict[str, float] = field(default_factory=dict)
    parameters: Table | None = None
    modules: Table | None = None
    onset: Onset | None = None
    skipped: str = ""
    histograms: list[Histogram] = field(default_factory=list)

    def shows(self, onset: Onset) -> bool:
        """Whether it is a full step that has looked at what was not finite then."""
        if not self.full:
            return False
        table = self.modules if onset.parameter is None else self.parameters
        subject = onset.module if onset.parameter is None else onset.parameter
        return subject is None or (table is not None and table.holds(subject))


def parameter_keys(names: Sequence[str]) -> tuple[SeriesKey, ...]:
    return tuple(
        SeriesKey(quantity, "parameter", name)
        for quantity in PARAMETER_QUANTITIES
        for name in names
    )


class ModuleColumns:
    """Which module series exist: every quantity, but saturation only where there are bounds.

    Attributes:
        selected: their places among six statistics of every module.
    """

    def __init__(self, paths: Sequence[str], bounded: Sequence[bool]) -> None:
        self.size = len(paths)
        picked = [
            (quantity, position)
            for quantity in MODULE_QUANTITIES
            for position in range(self.size)
            if quantity != "activation_saturated" or bounded[position]
        ]
        self.keys = tuple(SeriesKey(q, "module", paths[i]) for q, i in picked)
        rows = [MODULE_QUANTITIES.index(q) * self.size + i for q, i in picked]
        self.selected = np.array(rows, dtype=np.int64)

    def select(self, values: F32) -> Table:
        """The series that exist, from six statistics of every module."""
        if len(self.keys) == len(values):
            return Table(self.keys, values)
        return Table(self.keys, values[self.selected])

    def table(self, statistics: ModuleStatistics, gradient: np.ndarray) -> Table:
        """``gradient`` holds output-gradient norms, negative where there is none."""
        seen = statistics.count > 0
        values = np.concatenate(
            (
                statistics.mean,
                statistics.std,
                statistics.zeros,
                statistics.saturated,
                statistics.nonfinite,
                gradient,
            )
        )
        there = np.concatenate((seen, seen & ~statistics.lost, seen, seen, seen, ~(gradient < 0)))
        return self.select(with_absent(values, there))
