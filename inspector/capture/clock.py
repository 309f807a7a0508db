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
        self._by_probe: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def spend(self, since_ns: int, probe: str = "forward") -> None:
        """Charges the time since ``since_ns`` (of ``time.perf_counter_ns``) to a probe."""
        taken = time.perf_counter_ns() - since_ns + DISPATCH_NS
        self.own_ns += taken
        self._by_probe[probe] = self._by_probe.get(probe, 0) + taken

    def charge(self, probe: str, taken_ns: int) -> None:
        """Charges time that was measured elsewhere."""
        self.own_ns += taken_ns
        self._by_probe[probe] = self._by_probe.get(probe, 0) + taken_ns

    def book(self, probe: str, since_ns: int) -> None:
        """Shows a part of what is charged elsewhere as a probe's own."""
        taken = time.perf_counter_ns() - since_ns
        self._by_probe[probe] = self._by_probe.get(probe, 0) + taken

    @property
    def shares(self) -> dict[str, float]:
        """Seconds that each probe took of the step that :meth:`tick` has ended."""
        return {probe: taken / 1e9 for probe, taken in self._ended.items()}

    def tick(self) -> tuple[float | None, float]:
        """Ends the step; gives its wall time and our share of it, in seconds.

        The wall time of the first step is not known: None.
        """
        now = time.perf_counter_ns()
        wall = None if self._last is None else (now - self._last) / 1e9
        own = self.own_ns / 1e9
        self._last = now
        self.own_ns = 0
        self._ended, self._by_probe = self._by_probe, {}
        self.step += 1
        return wall, own

    def restart(self) -> None:
        """Leaves a pause out of the next step's time."""
        self._last = time.perf_counter_ns()
