"""How fast a run went until it was paused or ended, by the clock of its recording."""

from __future__ import annotations

import numpy as np

from inspector.store.reader import Run

_WINDOW = 5.0  # seconds, as the browser watches a run that goes on
_LEAST = 1.0


def pace(run: Run, since: float = 0.0) -> float | None:
    """Seconds a step over the last five seconds of steps, what slow motion waits included.

    Args:
        since: seconds since 1970 before which nothing counts, such as the end of a pause.

    Returns:
        None where less than a second was recorded.
    """
    steps, walls = run.clock()
    steps, walls = steps[walls >= since], walls[walls >= since]
    if not len(walls) or walls[-1] - walls[0] < _LEAST:
        return None
    inside = int(np.searchsorted(walls, walls[-1] - _WINDOW))
    enough = int(np.searchsorted(walls, walls[-1] - _LEAST, side="right")) - 1
    first = min(inside, enough)  # one slow step may take longer than all five seconds
    return float(walls[-1] - walls[first]) / int(steps[-1] - steps[first])
