"""Steps that Python does not attend, written down by the extension.

Between two boundaries that Python attends, ``stretch.c`` takes what is recorded and what the
optimizer steps with; afterwards all these steps are handed over as columns. In quiet steps that
is all; of fully measured ones there are tables beside it, see :mod:`full_steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

NOWHERE = -1.7976931348623157e308
"""Stands in a column for a number that a step does not have."""

MOST_NS = 250_000_000
"""Nanoseconds after which Python looks after things again: rows are stored, commands heard."""

CALLS_NS = 4_500
"""Cost of the calls in a quiet step, which they cannot time themselves.

That is PyTorch's way to the hooks around the optimizer's step, the detour of ``zero_grad()`` and
the call of ``record()``: 6 µs a step by watched / bare on a 0.4 ms step, of which a quarter is
timed.
"""

Column = npt.NDArray[np.float64]
_FIXED = (
    "loss",
    "step_time",
    "overhead",
    "backward_passes",
    "lr",
    "momentum",
    "weight_decay",
    "total_grad_norm",
    "clipped_grad_norm",
    "clipped",
    "total_update_ratio",
    "nonfinite",
)


def filled(column: Column, before: float) -> Column:
    """The column with each gap closed by the number before it, or by ``before``."""
    here = np.where(column != NOWHERE, np.arange(1, len(column) + 1), 0)
    places = np.maximum.accumulate(here)
    return np.concatenate(([before], column))[places]


class Pulse:
    """What the extension's ``Stretch`` is without the extension: the count of the steps."""

    __slots__ = ("alarm", "calm", "late", "open", "own", "passes", "step", "usual", "witness")

    def __init__(self) -> None:
        self.step = self.own = self.passes = self.usual = 0
        self.open = self.alarm = self.late = self.calm = 0
        self.witness: Any = None

    def take(self, _loss: Any, _others: dict[str, Any]) -> bool:
        """Takes what the script records; False when it has not."""
        return False


class StepHooks:
    """What the extension's ``StepHooks`` are without the extension: they hang on one optimizer.

    Attributes:
        stepped: how often the optimizer has stepped.
        swept: ``zero_grad()`` was called while the extension did the steps.
    """

    swept = 0

    def __init__(
        self,
        _pulse: Pulse,
        _optimizer: Any,
        before: Callable[..., Any],
        after: Callable[..., Any],
        sweep: Callable[..., Any],
        _first: bool,
    ) -> None:
        self.stepped = 0
        self.before, self.sweep = before, sweep
        self._after = after

    def after(self, *args: Any) -> Any:
        self.stepped += 1
        return self._after(*args)


class Taken:
    """What a stretch has written down.

    Attributes:
        first: the first step.
        count: how many steps.
        columns: numbers by name, ``NOWHERE`` where a step has none. ``overhead`` is a share.
        walls, own: seconds of each step, and of our share of it.
        running: the numbers of the step that runs.
        since_ns: time since the last boundary.
    """

    def __init__(self, stretch: Any) -> None:
        rows, current, names, self.since_ns = stretch.end()
        names = (*_FIXED, *names)
        table = np.frombuffer(rows).reshape(-1, len(current) // 8)
        self.count = len(table)
        self.first = int(stretch.step) - self.count
        self.columns = {name: table[:, at] for at, name in enumerate(_FIXED)}
        self.walls, self.own = self.columns["step_time"], self.columns["overhead"]
        with np.errstate(all="ignore"):
            self.columns["overhead"] = (self.own + CALLS_NS / 1e9) / self.walls
        for at, name in enumerate(names[len(_FIXED) :], len(_FIXED)):
            column, fixed = table[:, at], self.columns.get(name)
            if fixed is not None:  # a script may record what has a place of its own
                column = np.where(column != NOWHERE, column, fixed)
            self.columns[name] = column
        values = np.frombuffer(current)
        self.running = {
            name: float(values[at]) for at, name in enumerate(names) if values[at] != NOWHERE
        }

    def part(self, start: int, stop: int) -> dict[str, Column]:
        """The columns of some of the steps, without those that have no number at all."""
        found = {name: column[start:stop] for name, column in self.columns.items()}
        return {name: column for name, column in found.items() if (column != NOWHERE).any()}

    def row(self, at: int) -> dict[str, float]:
        """The numbers of one step."""
        found = {name: float(column[at]) for name, column in self.columns.items()}
        return {name: value for name, value in found.items() if value != NOWHERE}

    def bad_losses(self) -> list[int]:
        """Positions of the steps whose loss is not finite."""
        return [int(at) for at in np.flatnonzero(~np.isfinite(self.columns["loss"]))]
