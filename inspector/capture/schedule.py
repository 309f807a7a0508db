"""How often modules and parameters are measured, so that watching keeps to its budget."""

from __future__ import annotations

import math
import statistics
from collections import deque

import numpy as np
import numpy.typing as npt

BUDGET = 0.03
"""Share of the training time that watching may take."""

_ELSEWHERE = 0.01
"""The part of it that histograms, copies of the state and examinations keep to by themselves."""

Seconds = npt.NDArray[np.float64]

_LADDER = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
_WARM_UP = 3  # full steps before the first decision: the very first ones are slow
_FIRM = 3  # reviews in a row that want the spacing wider, or narrower, before it changes again
_ENOUGH = 5  # walls of each kind, before their medians count
_HALF_LIFE = 200  # quiet steps after which what they cost counts half


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
        self._thin = 0.0
        self._dear: deque[float] = deque(maxlen=9)
        self._bares: deque[float] = deque(maxlen=41)
        self._reviewed_at = 0
        self._changed = False
        self._streak: list[int] = []
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

    @property
    def each(self) -> bool:
        """Whether all steps to come are measured fully, as far as is known."""
        return (self.every or self.spacing) == 1 and not self._closer

    def next_full(self, step: int) -> int:
        """The first step from this one on that will be measured fully."""
        if self._closer:
            return step
        if self.every:
            return -(-step // self.every) * self.every
        return max(step, self._next)

    def look_closer(self) -> None:
        """The next step is measured fully, out of turn."""
        self._closer = True

    @property
    def bare(self) -> float | None:
        """Seconds of a step without watching, as far as is known; pauses do not count."""
        return statistics.median(self._bares) if self._bares else None

    def note(self, full: bool, wall: float | None, own: float) -> None:
        """Learns what a step cost: wall time and our share of it, in seconds."""
        self._full_steps += full
        if wall is None or self._full_steps <= 1:
            return
        self._walls[full].append(wall)
        self._bares.append(max(wall - own, 1e-9))
        if full:
            self._dear.append(own)
        else:
            self._learn(own, 1)

    def note_quiet(self, walls: Seconds, own: Seconds) -> None:
        """Learns what consecutive quiet steps took, and our share of each."""
        if self._full_steps > 1:
            self._note_bare(False, walls, own)
            self._learn(float(own.mean()), len(walls))

    def note_full(self, walls: Seconds, own: Seconds) -> None:
        """Learns what consecutive full steps took, and our share of each."""
        self._full_steps += len(walls)
        self._note_bare(True, walls, own)
        self._dear.extend(own[-9:].tolist())

    def _note_bare(self, full: bool, walls: Seconds, own: Seconds) -> None:
        recent = walls[-41:]
        self._walls[full].extend(recent.tolist())
        self._bares.extend(np.maximum(recent - own[-41:], 1e-9).tolist())

    def _learn(self, own: float, steps: int) -> None:
        """Follows the mean cost of quiet steps, whether told one by one or many together."""
        self._thin += (1 - 0.5 ** (steps / _HALF_LIFE)) * (own - self._thin)

    def review(self) -> int | None:
        """The new spacing if it changes now, else None."""
        if self.every or not self._bares or not self._dear:
            return None
        if self._full_steps < _WARM_UP or self._full_steps == self._reviewed_at:
            return None
        self._reviewed_at = self._full_steps
        wanted = self._affordable(statistics.median(self._bares))
        if wanted == self.spacing or (wanted < self.spacing and wanted * 2 > self.spacing):
            self._streak.clear()
            return None
        if self._streak and (self._streak[-1] > self.spacing) is not (wanted > self.spacing):
            self._streak.clear()
        self._streak.append(wanted)
        if self._changed and len(self._streak) < _FIRM:  # a busy machine is no reason to waver
            return None
        self.spacing = min(self._streak, key=lambda spacing: abs(spacing - self.spacing))
        if not self._changed:  # the very first steps were slow, and say little of later ones
            self._dear.clear()
            self._walls[True].clear()
        self._changed = True
        self._streak.clear()
        return self.spacing

    def _affordable(self, bare: float) -> int:
        allowed = (self.budget - _ELSEWHERE) * bare - self._thin
        extra = max(statistics.median(self._dear) - self._thin, self._dearer(), 0.0)
        longest = max(1.0, 1.0 / bare)
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
