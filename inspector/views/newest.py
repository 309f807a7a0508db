"""The newest value of a series, as it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.store.reader import Run

_BUCKETS = 64


def newest(run: Run, quantity: str) -> tuple[int, float] | None:
    """The last step at which the run measured a quantity, and its value there.

    A thinned series will not do: its last value is the mean over a bucket of steps.
    """
    first = None
    while len(series := run.series(quantity, max_points=_BUCKETS, first=first)) > 1:
        if series.bucket == 1:
            break
        first = int(series.steps[-2]) + 1
    exact = run.series(quantity, max_points=series.bucket * _BUCKETS, first=first)
    return (int(exact.steps[-1]), float(exact.values[-1])) if len(exact) else None
