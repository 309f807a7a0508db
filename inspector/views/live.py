"""What live charts hold: buffers that are loaded once from the reader and then grow by rows.

A buffer keeps at most twice the points it was loaded with. Once rows come faster than one a
point, they are folded into buckets of equal width in steps that keep minimum, maximum and the
count of non-finite values; a full buffer is loaded afresh. Every viewer remembers how much it has
seen (:class:`Seen`) and is given the rest, or everything when it is behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from inspector.quantities import SeriesKey, described
from inspector.store.layout import F32, I64, Mask
from inspector.store.modules import owner, together
from inspector.store.records import Matrix, Series

Fold = Literal["mean", "weighted", "max", "min", "sum"]
"""How the rows of a bucket become one: ``weighted`` is a mean by the counts of the last plane."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How much of a buffer a viewer has: which loading, how many points, after which change."""

    epoch: int = -1
    points: int = 0
    version: int = -1


@dataclass(frozen=True, slots=True)
class Update:
    """The part of a buffer that a viewer lacks.

    Attributes:
        start: index of the first point here; 0 replaces everything.
        subjects: names of the rows, given when ``start`` is 0.
        steps: step of each of the n points.
        planes: float32, one row of n values for each of value, low, high, non-finite count and
            count of finite numbers (lines), or for value and non-finite count of each subject
            (matrices).
        folded: whether a point stands for several rows, and its step is that of the last one.
    """

    start: int
    subjects: tuple[str, ...]
    steps: I64
    planes: F32
    folded: bool = False


class Buffer:
    """Points over steps: ``planes`` × capacity, growing on the right.

    ``fold`` names how each plane combines the rows of one bucket.
    """

    def __init__(self, max_points: int) -> None:
        self.max_points = max_points
        self.epoch = 0
        self.size = 0
        self.stride = 1
        self.version = 0
        self._loaded = 0
        self.subjects: tuple[str, ...] = ()
        self._steps: I64 = np.zeros(0, np.int64)
        self._planes: F32 = np.zeros((0, 0), np.float32)
        self._folds: tuple[Fold, ...] = ()

    @property
    def full(self) -> bool:
        """Whether it has doubled, and should be loaded again."""
        return self.size >= 2 * max(self.max_points, self._loaded)

    @property
    def last_step(self) -> int:
        return int(self._steps[self.size - 1]) if self.size else -1

    def fill(
        self,
        steps: I64,
        planes: F32,
        folds: Sequence[Fold],
        *,
        bucket: int,
        subjects: Sequence[str] = (),
    ) -> None:
        """Replaces everything; ``bucket`` is how many rows a point stands for."""
        size = len(steps)
        capacity = max(2 * self.max_points, size) + 64
        self._steps = np.zeros(capacity, np.int64)
        self._planes = np.zeros((len(planes), capacity), np.float32)
        self._steps[:size] = steps
        self._planes[:, :size] = planes
        self._folds = tuple(folds)
        self.subjects = tuple(subjects)
        self.size = self._loaded = size
        self.stride = _stride(steps) if bucket > 1 else 1
        self.epoch += 1
        self.version += 1

    def grow(self, steps: I64, planes: F32) -> None:
        """Appends rows, whose steps rise; rows that are not newer than the last are left out."""
        new = steps > self.last_step
        if not new.any():
            return
        steps, planes = steps[new], planes[:, new]
        if self.stride > 1:
            steps, planes = self._fold(steps, planes)
        room = len(self._steps) - self.size
        if len(steps) > room:
            extra = max(len(steps) - room, len(self._steps))
            self._steps = np.concatenate([self._steps, np.zeros(extra, np.int64)])
            self._planes = np.concatenate(
                [self._planes, np.zeros((len(self._planes), extra), np.float32)], axis=1
            )
        end = self.size + len(steps)
        self._steps[self.size : end] = steps
        self._planes[:, self.size : end] = planes
        self.size = end
        self.version += 1

    def after(self, seen: Seen) -> tuple[Update | None, Seen]:
        """What a viewer lacks, and what it has seen then.

        The last point it has may have been an unfinished bucket, so it is sent again.
        """
        now = Seen(self.epoch, self.size, self.version)
        if seen == now:
            return None, now
        start = max(0, seen.points - 1) if seen.epoch == self.epoch else 0
        return (
            Update(
                start=start,
                subjects=self.subjects if start == 0 else (),
                steps=self._steps[start : self.size].copy(),
                planes=self._planes[:, start : self.size].copy(),
                folded=self.stride > 1,
            ),
            now,
        )

    def _fold(self, steps: I64, planes: F32) -> tuple[I64, F32]:
        """Rows as buckets; an unfinished last bucket is taken back and folded with them."""
        if self.size and self.last_step // self.stride == int(steps[0]) // self.stride:
            self.size -= 1
            last = slice(self.size, self.size + 1)
            steps = np.concatenate([self._steps[last], steps])
            planes = np.concatenate([self._planes[:, last], planes], axis=1)
        buckets = steps // self.stride
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        ends = np.append(starts[1:], len(steps)) - 1
        folded = np.stack(
            [
                _reduce(fold, plane, starts, planes[-1])
                for fold, plane in zip(self._folds, planes, strict=True)
            ]
        )
        return steps[ends], folded


class SeriesBuffer(Buffer):
    """One series: planes value, low, high, non-finite count, count of finite numbers."""

    FOLDS: tuple[Fold, ...] = ("weighted", "min", "max", "sum", "sum")

    def __init__(self, key: SeriesKey, max_points: int) -> None:
        super().__init__(max_points)
        self.key = key

    def load(self, series: Series) -> None:
        finite = np.where(np.isfinite(series.values), series.values, np.float32(np.nan))
        counts = np.isfinite(series.values) if series.finite is None else series.finite
        bad, good = series.nonfinite.astype(np.float32), counts.astype(np.float32)
        planes = np.stack([finite, series.low, series.high, bad, good])
        self.fill(series.steps, planes, self.FOLDS, bucket=series.bucket)

    def extend(self, steps: I64, values: F32) -> None:
        """Appends measured values; NaN and infinity count as non-finite."""
        finite = np.isfinite(values)
        shown = np.where(finite, values, np.float32(np.nan))
        good = finite.astype(np.float32)
        self.grow(steps, np.stack([shown, shown, shown, 1 - good, good]))


class MatrixKey(NamedTuple):
    """Which rows a matrix has: all subjects or the given ones, or modules made of them."""

    quantity: str
    by: Literal["subject", "module"] = "subject"
    subjects: tuple[str, ...] = ()


class MatrixBuffer(Buffer):
    """One quantity of many subjects: for k rows, k planes of values, k of non-finite counts.

    Combines rows of the store as :meth:`inspector.store.reader.Run.matrix` does.
    """

    def __init__(self, key: MatrixKey, max_points: int) -> None:
        super().__init__(max_points)
        self.key = key
        known = described(key.quantity)
        self._unit = known.unit
        self._fold_values: Fold = "max" if known.peaks else "mean"
        self._by_module = key.by == "module" and known.scope == "parameter"
        self._rows: dict[str, int] = {}

    def load(self, matrix: Matrix) -> None:
        count = len(matrix.subjects)
        folds: list[Fold] = [self._fold_values] * count + ["sum"] * count
        planes = np.concatenate([matrix.values, matrix.nonfinite.astype(np.float32)])
        self.fill(matrix.steps, planes, folds, bucket=matrix.bucket, subjects=matrix.subjects)
        self._rows = {subject: row for row, subject in enumerate(matrix.subjects)}

    def extend(self, subjects: Sequence[str], steps: I64, values: F32, present: Mask) -> bool:
        """Appends values of subjects × steps where ``present`` (measured at all).

        Returns:
            False when a row is new, so that the buffer must be loaded again.
        """
        wanted = self.key.subjects
        rows: dict[str, list[int]] = {}
        for at, subject in enumerate(subjects):
            if not wanted or subject in wanted:
                rows.setdefault(owner(subject) if self._by_module else subject, []).append(at)
        if not rows.keys() <= self._rows.keys():
            return False
        count = len(self._rows)
        shown = np.full((count, len(steps)), np.nan, np.float32)
        bad = np.zeros((count, len(steps)), np.float32)
        finite = np.isfinite(values)
        numbers = np.where(finite, values, np.float32(np.nan))
        for name, own in rows.items():
            row = self._rows[name]
            shown[row] = together(numbers[own], self._unit) if len(own) > 1 else numbers[own[0]]
            bad[row] = (present[own] & ~finite[own]).sum(axis=0)
        self.grow(steps, np.concatenate([shown, bad]))
        return True


def _stride(steps: I64) -> int:
    """Width of a bucket in steps."""
    return max(1, int(np.median(np.diff(steps)))) if len(steps) > 1 else 1


def _reduce(fold: Fold, plane: F32, starts: npt.NDArray[np.intp], counts: F32) -> F32:
    if fold == "sum":
        return np.add.reduceat(plane, starts)
    if fold == "min":
        return np.fmin.reduceat(plane, starts)
    if fold == "max":
        return np.fmax.reduceat(plane, starts)
    finite = np.isfinite(plane)
    weights = np.where(finite, counts if fold == "weighted" else 1, 0).astype(np.float64)
    sums = np.add.reduceat(np.where(finite, plane, 0) * weights, starts)
    with np.errstate(invalid="ignore"):
        return (sums / np.add.reduceat(weights, starts)).astype(np.float32)
