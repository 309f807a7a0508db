"""Pausing, stepping and slow motion at a step boundary."""

from __future__ import annotations

import time


class Pace:
    """Whether training may go on, and how fast.

    Attributes:
        paused: training waits at the boundary.
        reason: why it is paused: command, steps_done or nonfinite.
        stopped: the script has been asked to end.
    """

    def __init__(self) -> None:
        self.paused = False
        self.reason = "command"
        self.stopped = False
        self._left: int | None = None
        self._interval = 0.0
        self._last = time.monotonic()

    @property
    def engaged(self) -> bool:
        """Whether the boundary has anything to do besides going on."""
        return self.paused or self._left is not None or self._interval > 0

    def pause(self, reason: str) -> None:
        self.paused = True
        self.reason = reason
        self._left = None

    def resume(self, steps: int | None = None) -> None:
        """Goes on, for ever or for so many steps."""
        self.paused = False
        self._left = steps

    def stop(self) -> None:
        self.stopped = True
        self.resume()

    def limit(self, steps_per_s: float | None) -> None:
        """Slow motion: at most so many steps a second; None is full speed."""
        self._interval = 0.0 if steps_per_s is None else 1.0 / steps_per_s

    def step_done(self) -> bool:
        """Counts a step of ``run_steps``; True when that was the last one."""
        if self._left is None:
            return False
        self._left -= 1
        return self._left <= 0

    def wait(self) -> float:
        """Seconds until slow motion allows the next step."""
        return max(0.0, self._last + self._interval - time.monotonic())

    def began(self) -> None:
        """The next step begins now."""
        self._last = time.monotonic()
