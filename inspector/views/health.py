"""What watching sees of a model, what it cannot see and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from inspector.errors import StoreError
from inspector.events import ProbeFailed, StoredEvent
from inspector.store.reader import Run
from inspector.views.modules import ROOT

Sight = Literal["seen", "no statistics", "blind", "never ran"]

LATE = "gradients_late"
"""Run series: 1 at steps whose gradients were first seen when the optimizer stepped."""

_RECENT = 200
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
        "called inside torch.func", "blind",
        "Under torch.func.grad, vmap and their like tensors stand for values that are not there.",
        "Call it once more outside the transform, with gradients, to see inside. Its parameters "
        "are measured in any case.",
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

_READ = "NonDynamicallyQuantizableLinear"  # what nn.MultiheadAttention projects with
_IN_ATTENTION: tuple[Sight, str, str] = (
    "no statistics",
    "nn.MultiheadAttention reads its weights and does not call it: its output is the attention's.",
    "Nothing to do. Its parameters and gradients are measured.",
)
_IN_PARTS: tuple[Sight, str, str] = (
    "no statistics",
    "It is not called as a whole: its parts are called one by one, and are seen.",
    "Nothing to do.",
)


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
    modules = list((document or {}).get("modules", []))
    around = {
        parent
        for module in modules
        if not module.get("badge")
        for parent in _around(module["path"])
    }
    found = []
    for module in modules:
        kind, own = str(module.get("type", "")), str(module.get("path", ""))
        if kind in _HOLDERS:  # never called by nature
            continue
        badge = str(module.get("badge") or "")
        judged = _judge(badge)
        if judged[0] == "never ran" and own in around:
            judged = _IN_PARTS
        elif judged[0] == "blind" and kind == _READ:
            judged = _IN_ATTENTION
        found.append(ModuleHealth(own or ROOT, kind, *judged))
    return found


def _around(path: str) -> list[str]:
    """Paths of the modules that hold this one: ``a.b`` has ``a`` and the root."""
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts))]


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
