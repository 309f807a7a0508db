"""What watching costs, by its parts and over the steps, and how the schedule keeps it down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inspector.errors import StoreError
from inspector.events import CommandApplied, ScheduleChanged, StoredEvent
from inspector.quantities import QUANTITIES
from inspector.store.layout import F32, I64
from inspector.store.reader import Run
from inspector.views.checkpoints import lineage

BUDGET = 0.03
"""Share of the time that the automatic schedule allows itself."""

EXAMINED = 16
"""Steps at the start of a run in which its program is examined for the diagnosis: they cost more
than those that follow (as ``FIRST_STEPS`` of the probe)."""

ANY_COST = 400
"""Steps up to which it is examined again in short spells, whatever these cost (as the probe's)."""

EVERYTHING = "modules and parameters"
"""What the schedule spaces, in the words of its events."""

_ELSEWHERE = (
    "each step costs a little even where nothing is measured, and time for which another program "
    "held the processor counts as well."
)
_EXAMINING = (
    f"in the first {ANY_COST} steps the program is examined for the diagnosis in short spells, "
    "whatever that costs. Later spells wait until they fit the budget."
)
_NAMED_AT = 0.0005  # less is written as 0.0%
_WITHIN = "overhead_histograms"
_REST = "calls of hooks and the rest"
_TELLINGS = 8  # of the parts, four of which come in a second
_BACK = 20_000  # steps, further back than which they are not looked for
_RECENT = 200  # steps at least, of which the cost is told
_OVER = 0.005  # of the time: less than the wavering of a quiet machine
_CYCLES = 4  # of the schedule at least, so that their share of full steps is that of the run
_DRAWN = 4000  # steps at least, in the chart
_WINDOW, _WINDOWS = 50, 60  # steps of a stretch at least, stretches of a chart at most
_MOST = 1 << 16  # steps that are read one by one: buckets of them would not do
_STRETCHES = 12  # of one cycle of the schedule each, where that is long


@dataclass(frozen=True, slots=True)
class Cost:
    """What watching takes of the training time: costs of several steps by the time of these steps.

    A single step says little: what is put in order between two steps is charged to the second,
    which may be far shorter.

    Attributes:
        first: share of the time of the first steps, in which the program is examined; None before.
        recent: share of the time of the last steps, without those: 200 of them, or four rounds of
            the schedule where these are longer; None before there are any.
        steps: how many steps ``recent`` is of.
        probes: title of each probe that is recorded by itself, and its share of the time of the
            last steps, or of the last two seconds where these are more; dearest first. What the
            probes cannot time themselves is among them.
        budget: the share that the schedule keeps to; None where it was told what to measure.
        examining: most of ``recent`` went into examining the program in the first steps.
    """

    first: float | None
    recent: float | None
    steps: int
    probes: tuple[tuple[str, float], ...]
    budget: float | None = None
    examining: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The schedule from ``step`` on: ``probe`` is measured every ``every`` steps."""

    step: int
    probe: str
    every: int
    reason: str


def cost(run: Run) -> Cost:
    """What watching takes of the training time."""
    begin = _first_step(run)
    beat = run.heartbeat
    newest = beat.step if beat else 0
    since = max(begin + EXAMINED, newest - max(_RECENT, _CYCLES * spacing(run)))
    recent = _Spent.of(run, "overhead", since)
    probes = _parts(run, begin + EXAMINED, since)
    examined = probes.get(probe_title("overhead_structure"), 0.0)
    return Cost(
        first=_Spent.of(run, "overhead", begin, begin + EXAMINED - 1).share,
        recent=recent.share,
        steps=len(recent.steps),
        probes=tuple(sorted(probes.items(), key=lambda probe: -probe[1])),
        budget=None if capture_every(run) else BUDGET,
        examining=since < begin + ANY_COST and examined > (recent.share or 0.0) / 2,
    )


def cost_windows(run: Run) -> list[tuple[int, int, float]]:
    """First step, last step and share of stretches of the last steps, oldest first.

    These are 4,000, or twelve rounds of the schedule where that is more. A stretch is no shorter
    than a round, so that each holds its part of the steps that are measured in full. The steps at
    the start in which the program is examined are left out.
    """
    beat, cycle = run.heartbeat, spacing(run)
    drawn = max(_DRAWN, _STRETCHES * cycle)
    since = max(_first_step(run) + EXAMINED, (beat.step if beat else 0) - drawn)
    spent = _Spent.of(run, "overhead", since)
    width = max(_WINDOW, cycle, -(-len(spent.steps) // _WINDOWS))
    found = []
    for start in range(0, len(spent.steps), width):
        part = spent.part(start, start + width)
        if part.share is not None and len(part.steps) >= min(width, len(spent.steps)) // 2:
            found.append((int(part.steps[0]), int(part.steps[-1]), part.share))
    return found


@dataclass(frozen=True, slots=True)
class _Spent:
    """Time that something took of each step, and the steps' own time, in seconds."""

    steps: I64
    own: F32
    wall: F32

    @classmethod
    def of(cls, run: Run, quantity: str, first: int, last: int | None = None) -> _Spent:
        try:
            shares = run.series(quantity, first=first, last=last, max_points=_MOST)
            times = run.series("step_time", first=first, last=last, max_points=_MOST)
        except StoreError:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
        steps, of_shares, of_times = np.intersect1d(
            shares.steps, times.steps, assume_unique=True, return_indices=True
        )
        wall = times.values[of_times]
        own = shares.values[of_shares] * wall
        known = np.isfinite(own) & np.isfinite(wall)
        return cls(steps[known], own[known], wall[known])

    @property
    def share(self) -> float | None:
        total = float(self.wall.sum(dtype=np.float64))
        return float(self.own.sum(dtype=np.float64)) / total if total > 0 else None

    def part(self, start: int, end: int) -> _Spent:
        return _Spent(self.steps[start:end], self.own[start:end], self.wall[start:end])


def _parts(run: Run, least: int, since: int) -> dict[str, float]:
    """By title of a probe, its share of the time since some step: each telling is one of its own.

    Args:
        least: the first step that counts.
    """
    first = max(least, since - _BACK)
    told = {name: run.series(name, first=first, max_points=_MOST) for name in probe_quantities(run)}
    if not told:
        return {}
    ends = np.unique(np.concatenate([series.steps for series in told.values()]))
    if not len(ends):
        return {}
    begin = min(int(np.searchsorted(ends, since)), max(0, len(ends) - _TELLINGS))
    first = int(ends[begin - 1]) + 1 if begin else first
    spent = _Spent.of(run, "overhead", first, int(ends[-1]))
    ends = ends[begin:]
    passed = np.concatenate(([0.0], np.cumsum(spent.wall, dtype=np.float64)))
    seconds = np.diff(passed[np.searchsorted(spent.steps, ends, side="right")], prepend=0.0)
    whole = float(seconds.sum())
    if whole <= 0:
        return {}
    found = {}
    for name, series in told.items():
        at = np.searchsorted(ends, series.steps[series.steps >= ends[0]])
        values = series.values[series.steps >= ends[0]]
        found[name] = float((np.nan_to_num(values) * seconds[at]).sum()) / whole
    # Histograms are counted a second time: within the gradients and the end of the step.
    known = sum(share for name, share in found.items() if name != _WITHIN)
    rest = (spent.share or 0.0) - known
    return {probe_title(name): share for name, share in found.items()} | {_REST: max(rest, 0.0)}


def _first_step(run: Run) -> int:
    """0, or where the run that is gone on from had come."""
    origin = lineage(run)
    return origin.step if origin else 0


def cost_words(cost: Cost) -> list[str]:
    """The cost as sentences in Markdown, each with what it is a share of."""
    if cost.first is None and cost.recent is None:
        return ["The cost is known after the second step."]
    if cost.recent is None:
        return [
            f"Examining the program (first {EXAMINED} steps): these cost more than all that "
            f"follow, so far **{cost.first:.1%}** of their time."
        ]
    took = f"Watching took **{cost.recent:.1%}** of the time of the last {cost.steps:,} steps."
    if cost.budget is not None and cost.recent >= cost.budget + _OVER:
        took += f" That is more than the budget of {cost.budget:.0%}: "
        took += _EXAMINING if cost.examining else _ELSEWHERE
    said = [took]
    within = probe_title(_WITHIN)
    parts = ", ".join(
        f"{title} {part:.1%}" + " (within the others)" * (title == within)
        for title, part in cost.probes
        if part >= _NAMED_AT
    )
    if parts:
        said.append(f"By part: {parts}.")
    if cost.first is not None:
        said.append(
            f"In the first {EXAMINED} steps, in which the program is examined for the diagnosis, "
            f"it took {cost.first:.1%}; that comes once."
        )
    return said


def probe_quantities(run: Run) -> list[str]:
    """Names of the series that hold the cost of one probe."""
    recorded = {key.quantity for key in run.keys()}  # noqa: SIM118
    return sorted(name for name in recorded if name.startswith("overhead_"))


def probe_title(quantity: str) -> str:
    """``overhead_forward`` → ``module outputs``, in the words of its quantity."""
    known = QUANTITIES.get(quantity)
    return (known.title if known else quantity).rpartition(": ")[2].removeprefix("overhead_")


def changes(events: Iterable[StoredEvent]) -> list[Change]:
    """Every change of the schedule, by itself or on command, oldest first."""
    found = []
    for stored in events:
        event = stored.event
        if isinstance(event, ScheduleChanged):
            found.append(Change(stored.step, event.probe, event.every, event.reason))
        elif isinstance(event, CommandApplied) and event.name == "capture_every":
            every = event.effective
            if isinstance(every, int) and every > 0:
                found.append(Change(stored.step, EVERYTHING, every, "as was asked for"))
    return found


def schedule_words(every: int, made: Sequence[Change]) -> str:
    """The schedule as a sentence or two; ``every`` is the control in force, 0 for automatic."""
    if every:
        return (
            f"Modules and parameters are measured {_every(every)}, as was asked for; the cost "
            "is what it is. Choose automatic measuring to keep to a budget."
        )
    newest: dict[str, Change] = {change.probe: change for change in made}
    if not newest:
        return (
            f"The schedule is automatic, with a budget of {BUDGET:.0%} of the time. Every step is "
            "measured: there was no need to thin yet."
        )
    said = "; ".join(
        f"{change.probe} {_every(change.every)} since step {change.step:,}"
        for change in newest.values()
    )
    return (
        f"The schedule is automatic, with a budget of {BUDGET:.0%} of the time. Measured now: "
        f"{said}. Loss, learning rate and step time are recorded at every step."
    )


def capture_every(run: Run) -> int:
    """The capture schedule in force, from the newest heartbeat; 0 is automatic."""
    beat = run.heartbeat
    controls = beat.facts.get("controls") if beat else None
    every = controls.get("capture_every") if isinstance(controls, dict) else None
    return int(every) if isinstance(every, (int, float)) else 0


def spacing(run: Run) -> int:
    """Every how many steps modules and parameters are measured now."""
    return capture_every(run) or spacing_after(changes(run.events()))


def spacing_after(made: Sequence[Change]) -> int:
    """The spacing that the newest change left."""
    return made[-1].every if made else 1


def _every(steps: int) -> str:
    return "at every step" if steps == 1 else f"every {steps:,} steps"
