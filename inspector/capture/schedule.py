"""How often modules and parameters are measured, so that watching keeps to its budget."""

from __future__ import annotations

import math
import statistics
from collections import deque

BUDGET = 0.03
"""Share of the training time that watching may take."""

_LADDER = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
_WARM_UP = 3  # full steps before the first decision: the very first ones are slow
_SMOOTHING = 0.2
_ENOUGH = 5  # walls of each kind, before their medians count


class Schedule:
    """Decides which steps are measured fully.

    With ``every`` 0 the spacing follows from the measured costs: full steps are spread so far
    apart that the mean cost is within the budget, though never further than about a second.
    """

    def __init__(self, every: int = 0, budget: float = BUDGET) -> None:
        self.every = every
        self.budget = budget
        self.spacing = max(every, 1)
        self._next = 0
        self._closer = False
        self._full_steps = 0
        self._costs: dict[bool, float] = {}
        self._bare: float | None = None
        self._reviewed_at = 0
        self._walls: dict[bool, deque[float]] = {True: deque(maxlen=9), False: deque(maxlen=41)}

    def set_every(self, every: int) -> None:
        """0 turns to automatic spacing; N measures every N steps."""
        self.every = every
        self._next = 0
        if every:
            self.spacing = every

    def is_full(self, step: int) -> bool:
        """Whether this step is measured fully; asked once for each step, in order."""
        if self._closer:
            self._closer = False
            return True
        if self.every:
            return step % self.every == 0
        if step < self._next:
            return False
        self._next = step + self.spacing
        return True

    def look_closer(self) -> None:
        """The next step is measured fully, out of turn."""
        self._closer = True

    @property
    def bare(self) -> float | None:
        """Seconds of a step without watching, as far as is known."""
        return self._bare

    def note(self, full: bool, wall: float | None, own: float) -> None:
        """Learns what a step cost: wall time and our share of it, in seconds."""
        self._full_steps += full
        if wall is None or self._full_steps <= 1:
            return
        self._walls[full].append(wall)
        self._costs[full] = _smooth(self._costs.get(full), own)
        self._bare = _smooth(self._bare, max(wall - own, 1e-9))

    def review(self) -> int | None:
        """The new spacing if it changes now, else None."""
        if self.every or self._bare is None or True not in self._costs:
            return None
        if self._full_steps < _WARM_UP or self._full_steps == self._reviewed_at:
            return None
        self._reviewed_at = self._full_steps
        wanted = self._affordable()
        if wanted == self.spacing or (wanted < self.spacing and wanted * 2 > self.spacing):
            return None
        self.spacing = wanted
        return wanted

    def _affordable(self) -> int:
        assert self._bare is not None
        thin = self._costs.get(False, 0.0)
        allowed = self.budget * self._bare - thin
        extra = max(self._costs[True] - thin, self._dearer(), 0.0)
        longest = max(1.0, 1.0 / self._bare)
        steps = math.ceil(extra / allowed) if allowed > 0 else longest
        return next((n for n in _LADDER if n >= min(steps, longest)), _LADDER[-1])

    def _dearer(self) -> float:
        """By how much full steps last longer on the clock on the wall; 0 while that is not known.

        This includes what no probe can time itself: PyTorch's calls of hooks, and cold caches.
        """
        full, thin = self._walls[True], self._walls[False]
        if len(full) < _ENOUGH or len(thin) < _ENOUGH:
            return 0.0
        return statistics.median(full) - statistics.median(thin)


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)
