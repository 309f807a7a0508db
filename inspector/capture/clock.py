"""Step counting and timing: what a step took, and what watching took of it."""

from __future__ import annotations

import time

DISPATCH_NS = 1_500
"""PyTorch's own cost of calling one hook, which the hook cannot time itself (about 1.5 µs)."""


class Clock:
    """Counts completed optimizer steps and sums the time spent in our own code.

    Attributes:
        step: number of the step that runs now, 0-based.
        own_ns: time spent in the inspector's code during this step, in nanoseconds.
    """

    def __init__(self) -> None:
        self.step = 0
        self.own_ns = 0
        self._last: int | None = None

    def spend(self, since_ns: int) -> None:
        """Charges the time since ``since_ns`` (of ``time.perf_counter_ns``) to watching."""
        self.own_ns += time.perf_counter_ns() - since_ns + DISPATCH_NS

    def tick(self) -> tuple[float | None, float]:
        """Ends the step; gives its wall time and our share of it, in seconds.

        The wall time of the first step is not known: None.
        """
        now = time.perf_counter_ns()
        wall = None if self._last is None else (now - self._last) / 1e9
        own = self.own_ns / 1e9
        self._last = now
        self.own_ns = 0
        self.step += 1
        return wall, own

    def restart(self) -> None:
        """Leaves a pause out of the next step's time."""
        self._last = time.perf_counter_ns()
