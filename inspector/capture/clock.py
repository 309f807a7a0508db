"""Step counting and timing: what a step took, and what watching took of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from inspector.capture.quiet import Pulse

DISPATCH_NS = 1_500
"""PyTorch's own cost of calling one hook, which the hook cannot time itself (about 1.5 µs)."""

_SHARES_SECONDS = 0.25


class Clock:
    """Counts completed optimizer steps and sums the time spent in our own code.

    Attributes:
        pulse: where both are kept: the extension's ``Stretch``, or a :class:`Pulse`.
        last: the last boundary, on ``time.perf_counter_ns``; None before the first.
        meters: by probe, what gives the nanoseconds that ``pulse`` has been told of directly.
    """

    def __init__(self, extension: Any = None) -> None:
        self.pulse: Any = Pulse() if extension is None else extension.Stretch()
        self.meters: dict[str, Callable[[], int]] = {}
        self.last: int | None = None
        self._due = 0.0
        self._by_probe: dict[str, int] = {}  # nanoseconds since the shares were told
        self._lasted = 0.0  # seconds of the steps since then

    @property
    def step(self) -> int:
        """Number of the step that runs now, 0-based."""
        return self.pulse.step  # type: ignore[no-any-return]

    @step.setter
    def step(self, step: int) -> None:
        self.pulse.step = step

    @property
    def own_ns(self) -> int:
        """Time spent in the inspector's code during this step, in nanoseconds."""
        return self.pulse.own  # type: ignore[no-any-return]

    def spend(self, since_ns: int, probe: str = "forward") -> None:
        """Charges the time since ``since_ns`` (of ``time.perf_counter_ns``) to a probe."""
        taken = time.perf_counter_ns() - since_ns + DISPATCH_NS
        self.pulse.own += taken
        self._by_probe[probe] = self._by_probe.get(probe, 0) + taken

    def charge(self, probe: str, taken_ns: int) -> None:
        """Charges time that was measured elsewhere."""
        self.pulse.own += taken_ns
        self._by_probe[probe] = self._by_probe.get(probe, 0) + taken_ns

    def book(self, probe: str, since_ns: int) -> None:
        """Shows a part of what is charged elsewhere as a probe's own."""
        taken = time.perf_counter_ns() - since_ns
        self._by_probe[probe] = self._by_probe.get(probe, 0) + taken

    def _drain(self) -> list[tuple[str, int]]:
        """By probe, the nanoseconds that ``pulse`` was told of directly since this was asked."""
        return [(probe, taken) for probe, meter in self.meters.items() if (taken := meter())]

    def shares(self) -> dict[str, float]:
        """By series, what each probe took of the time of all steps since this was last told.

        That is four times a second: the shares do not change from step to step.
        """
        now = time.monotonic()
        if now < self._due or not self._lasted:
            return {}
        self._due = now + _SHARES_SECONDS
        spent = self._by_probe.items()
        found = {f"overhead_{probe}": taken / 1e9 / self._lasted for probe, taken in spent}
        self._by_probe, self._lasted = {}, 0.0
        return found

    def lasted(self, seconds: float, spent: dict[str, int]) -> None:
        """Steps were timed elsewhere, and what probes took of them in nanoseconds."""
        self._lasted += seconds
        for probe, taken in (*spent.items(), *self._drain()):
            self._by_probe[probe] = self._by_probe.get(probe, 0) + taken

    def tick(self) -> tuple[float | None, float]:
        """Ends the step; gives its wall time and our share of it, in seconds.

        The wall time of the first step is not known: None.
        """
        now = time.perf_counter_ns()
        wall = None if self.last is None else (now - self.last) / 1e9
        pulse = self.pulse
        own = pulse.own / 1e9
        self.lasted(wall or 0.0, {})
        if wall is None:
            self._by_probe = {}
        self.last = now
        pulse.own = 0
        pulse.step += 1
        return wall, own

    def resume(self, since_ns: int) -> None:
        """A stretch of quiet steps is over, whose last boundary was so long ago."""
        self.last = time.perf_counter_ns() - since_ns

    def restart(self) -> None:
        """Leaves a pause out of the next step's time."""
        self.last = time.perf_counter_ns()
