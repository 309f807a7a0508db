"""The newest value of a series, as it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.store.reader import Run


def newest(run: Run, quantity: str) -> tuple[int, float] | None:
    """The last step at which the run measured a quantity, and its value there.

    A thinned series will not do: its last value is the mean over a bucket of steps.
    """
    steps = run.series(quantity, max_points=2).steps
    if not len(steps):
        return None
    exact = run.series(quantity, first=int(steps[-1]))
    return int(exact.steps[-1]), float(exact.values[-1])
