"""What watching sees of a model, what it cannot see and why, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from inspector.errors import StoreError
from inspector.events import ProbeFailed, ScheduleChanged, StoredEvent
from inspector.quantities import QUANTITIES
from inspector.store.layout import F32, I64
from inspector.store.reader import Run
from inspector.views.checkpoints import lineage
from inspector.views.modules import ROOT

Sight = Literal["seen", "no statistics", "blind", "never ran"]

BUDGET = 0.03
"""Share of the time that the automatic schedule allows itself."""

LATE = "gradients_late"
"""Run series: 1 at steps whose gradients were first seen when the optimizer stepped."""

EXAMINED = 16
"""Steps at the start of a run in which its program is examined for the diagnosis: they cost more
than those that follow (as ``FIRST_STEPS`` of the probe)."""

_NAMED_AT = 0.0005  # less is written as 0.0%
_RECENT = 200
_DRAWN = 4000  # steps
_WINDOW, _WINDOWS = 50, 60  # steps of a stretch at least, stretches of a chart at most
_NAMED = 6  # modules of a group that its title names
_HOLDERS = frozenset({"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})

# Beginning of a badge of the ``modules`` document: what it means, why, and what helps.
_BADGES: tuple[tuple[str, Sight, str, str], ...] = (
    (
        "never called", "never ran",
        "No training pass has called it.",
        "Nothing to do if it only serves evaluation or a branch not taken yet; else call it in "
        "forward().",
    ),
    (
        "its parameters are used", "blind",
        "Its parameters get gradients, but its hooks did not run: .forward() is called directly, "
        "another module reads its weights, or it was compiled after watch() began.",
        "Call the module itself: self.block(x), not self.block.forward(x). Train uncompiled to "
        "see inside. Its parameters and gradients are measured in any case.",
    ),
    (
        "inside torch.compile", "blind",
        "Compiled code runs without module hooks.",
        "Train a few steps uncompiled: a built-in run with compile off, a script with "
        "TORCH_COMPILE_DISABLE=1. Its parameters and gradients are measured in any case.",
    ),
    (
        "compiled by torch.jit", "blind",
        "TorchScript runs without Python hooks.",
        "Watch the module as it was before torch.jit.script. Its parameters and gradients are "
        "measured in any case.",
    ),
    (
        "output is complex", "no statistics",
        "Mean and spread of a complex output are not defined here.",
        "Return its real view (torch.view_as_real) where you want statistics.",
    ),
    (
        "output is on the meta device", "no statistics",
        "Tensors on the meta device hold no values.",
        "Move the module to a real device.",
    ),
    (
        "output is sparse", "no statistics",
        "Sparse and nested outputs are not read.",
        "Its parameters and gradients are measured in any case.",
    ),
    (
        "output is", "no statistics",
        "Its output holds whole numbers or codes, which have no mean worth showing.",
        "Nothing to do.",
    ),
    (
        "its output holds no tensor", "no statistics",
        "No tensor was found in what it returns (tuples, dictionaries and dataclasses are "
        "searched).",
        "Return the tensor itself, or in a tuple, dictionary or dataclass.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModuleHealth:
    """One module: how well it is seen, and what to do about it (both empty when all is well)."""

    path: str
    type: str
    sight: Sight
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ParameterHealth:
    """A parameter without some of its numbers, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of the inspector that raised and has been off since ``step``."""

    step: int
    probe: str
    error: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What watching takes of the training time: costs of several steps by the time of these steps.

    A single step says little: what is put in order between two steps is charged to the second,
    which may be far shorter.

    Attributes:
        first: share of the time of the first steps, in which the program is examined; None before.
        recent: share of the time of the last 200 steps, without those; None before there are any.
        steps: how many steps ``recent`` is of.
        probes: title of each probe that is recorded by itself, and its share of the time of the
            steps in which it was timed, dearest first.
    """

    first: float | None
    recent: float | None
    steps: int
    probes: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """The schedule from ``step`` on: ``probe`` is measured every ``every`` steps."""

    step: int
    probe: str
    every: int
    reason: str


@dataclass(frozen=True, slots=True)
class Badge:
    """What stands at the head of the Modules page: how many modules are not fully seen."""

    count: int
    text: str
    level: Literal["good", "warning"]


@dataclass(frozen=True, slots=True)
class Health:
    """Everything the page shows that is not a chart."""

    modules: tuple[ModuleHealth, ...]
    parameters: tuple[ParameterHealth, ...]
    faults: tuple[Fault, ...]
    late: bool

    def of(self, *sights: Sight) -> list[ModuleHealth]:
        """Modules that are seen in one of these ways."""
        return [module for module in self.modules if module.sight in sights]


@dataclass(frozen=True, slots=True)
class Group:
    """Modules of which the same is to be said."""

    sight: Sight
    reason: str
    remedy: str
    modules: tuple[ModuleHealth, ...]

    @property
    def title(self) -> str:
        """``Blind: past, body.3 and 12 more``, with the modules' own names as they are."""
        names = [module.path for module in self.modules[:_NAMED]]
        more = len(self.modules) - len(names)
        listed = ", ".join(names) + (f" and {more:,} more" if more else "")
        return f"{self.sight[0].upper()}{self.sight[1:]}: {listed}"


def groups(modules: Iterable[ModuleHealth]) -> list[Group]:
    """Modules that are not fully seen, by reason: blind ones first."""
    found: dict[tuple[Sight, str, str], list[ModuleHealth]] = {}
    for module in modules:
        if module.sight != "seen":
            key = (module.sight, module.reason, module.remedy)
            found.setdefault(key, []).append(module)
    order = ("blind", "never ran", "no statistics")
    made = [Group(*key, tuple(members)) for key, members in found.items()]
    return sorted(made, key=lambda group: order.index(group.sight))


def health(run: Run) -> Health:
    """How well the run's model is seen; empty before its first step."""
    return Health(
        modules=tuple(module_health(run.document("modules"))),
        parameters=tuple(parameter_health(run.document("parameters"))),
        faults=tuple(faults(run.events())),
        late=bool(len(_values(run, LATE))),
    )


def health_badge(run: Run) -> Badge | None:
    """The badge for a page's head; None before anything is known."""
    modules = module_health(run.document("modules"))
    if not modules:
        return None
    parts = []
    for sight, words in (("blind", "blind"), ("never ran", "never ran")):
        if count := sum(module.sight == sight for module in modules):
            parts.append(f"{count} {words}")
    broken = len(list(faults(run.events())))
    if broken:
        parts.append(f"{broken} switched off")
    if not parts:
        return Badge(0, "every module is seen", "good")
    count = sum(module.sight in ("blind", "never ran") for module in modules) + broken
    return Badge(count, ", ".join(parts), "warning")


def module_health(document: dict[str, Any] | None) -> list[ModuleHealth]:
    """One entry per module, in the order of the document; lists of modules are left out."""
    found = []
    for module in (document or {}).get("modules", []):
        kind = str(module.get("type", ""))
        if kind in _HOLDERS:  # never called by nature
            continue
        sight, reason, remedy = _judge(str(module.get("badge") or ""))
        path = str(module.get("path", "")) or ROOT
        found.append(ModuleHealth(path, kind, sight, reason, remedy))
    return found


def parameter_health(document: dict[str, Any] | None) -> list[ParameterHealth]:
    """Parameters that have no norms, or that nobody steps; frozen ones are no concern."""
    return [
        ParameterHealth(str(row["name"]), str(row["badge"]))
        for row in (document or {}).get("parameters", [])
        if row.get("badge") and row["badge"] != "frozen"
    ]


def faults(events: Iterable[StoredEvent]) -> Iterable[Fault]:
    """Parts of the inspector that have switched themselves off."""
    for stored in events:
        if isinstance(stored.event, ProbeFailed):
            yield Fault(stored.step, stored.event.probe, stored.event.error)


def cost(run: Run) -> Cost:
    """What watching takes of the training time."""
    begin = _first_step(run)
    beat = run.heartbeat
    newest = beat.step if beat else 0
    since = max(begin + EXAMINED, newest - _RECENT)
    recent = _Spent.of(run, "overhead", since)
    probes = []
    for quantity in probe_quantities(run):  # recorded a few times a second, not at every step
        share = _Spent.of(run, quantity, since).share
        if share is not None:
            probes.append((probe_title(quantity), share))
    return Cost(
        first=_Spent.of(run, "overhead", begin, begin + EXAMINED - 1).share,
        recent=recent.share,
        steps=len(recent.steps),
        probes=tuple(sorted(probes, key=lambda probe: -probe[1])),
    )


def cost_windows(run: Run) -> list[tuple[int, int, float]]:
    """First step, last step and share of stretches of the last 4,000 steps, oldest first.

    The steps at the start in which the program is examined are left out.
    """
    beat = run.heartbeat
    since = max(_first_step(run) + EXAMINED, (beat.step if beat else 0) - _DRAWN)
    spent = _Spent.of(run, "overhead", since)
    width = max(_WINDOW, -(-len(spent.steps) // _WINDOWS))
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
            shares = run.series(quantity, first=first, last=last, max_points=_DRAWN * 2)
            times = run.series("step_time", first=first, last=last, max_points=_DRAWN * 2)
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
    said = [f"Watching took **{cost.recent:.1%}** of the time of the last {cost.steps:,} steps."]
    parts = ", ".join(f"{title} {share:.1%}" for title, share in cost.probes if share >= _NAMED_AT)
    if parts:
        said.append(f"Of the time of the steps in which the parts were timed: {parts}.")
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
    """Every change of the schedule, oldest first."""
    return [
        Change(stored.step, stored.event.probe, stored.event.every, stored.event.reason)
        for stored in events
        if isinstance(stored.event, ScheduleChanged)
    ]


def schedule_words(every: int, made: Sequence[Change]) -> str:
    """The schedule as a sentence or two; ``every`` is the control in force, 0 for automatic."""
    if every:
        return (
            f"Modules and parameters are measured {_every(every)}, as was asked for; the cost "
            "is what it is. Set the capture schedule to automatic to keep to a budget."
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


def _every(steps: int) -> str:
    return "at every step" if steps == 1 else f"every {steps:,} steps"


def _judge(badge: str) -> tuple[Sight, str, str]:
    if not badge:
        return "seen", "", ""
    for beginning, sight, reason, remedy in _BADGES:
        if badge.startswith(beginning):
            return sight, reason, remedy
    return "no statistics", f"{badge[0].upper()}{badge[1:]}.", ""


def _values(run: Run, quantity: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The newest finite values of a series of the run."""
    beat = run.heartbeat
    first = max(0, beat.step - _RECENT) if beat else None
    try:
        values = run.series(quantity, first=first).values
    except StoreError:
        return np.zeros(0, np.float32)
    return values[np.isfinite(values)]
