"""Which optimizers and parameter groups a run steps, and with what: names for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.commands import OF_OPTIMIZERS, series_of
from inspector.numerals import short
from inspector.views.newest import newest

if TYPE_CHECKING:
    from inspector.store.reader import Run


@dataclass(frozen=True, slots=True)
class Place:
    """What a command about optimizers can speak of.

    Attributes:
        target: as of a ``Command``; empty for all.
        title: its name for people.
        first: the optimizer and the group whose values stand for it.
    """

    target: str
    title: str
    first: tuple[int, int]

    def series(self, control: str) -> str:
        """Name of the series of a control."""
        return series_of(control, *self.first)


def stepped_by(optimizers: Iterable[Mapping[str, Any]]) -> str:
    """Classes of a run's optimizers, as its ``run.json`` names them: ``AdamW``, ``2 × Adam``."""
    counts = Counter(str(one.get("type", "")) for one in optimizers)
    return ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in counts.items())


def places(run: Run, *, rank: int = 0) -> tuple[Place, ...]:
    """All, each optimizer, each group; none where there is one optimizer with one group.

    A run that recorded no ``optimizers`` document has none either.
    """
    optimizers = _optimizers(run, rank)
    if not optimizers:
        return ()
    several = len(optimizers) > 1
    found = [Place("", "All optimizers" if several else "All groups", (0, 0))]
    for position, optimizer in enumerate(optimizers):
        if several:
            found.append(Place(f"{position}", optimizer["title"], (position, 0)))
        groups = optimizer["groups"] if len(optimizer["groups"]) > 1 else ()
        for number, group in enumerate(groups):
            found.append(Place(f"{position}/{number}", group["title"], (position, number)))
    return tuple(found)


def labels(run: Run, *, rank: int = 0) -> dict[str, str]:
    """Name for people of each group's series of learning rates, where there are several."""
    return {
        series_of("lr", position, number): group["title"]
        for position, optimizer in enumerate(_optimizers(run, rank))
        for number, group in enumerate(optimizer["groups"])
    }


def value(run: Run, place: Place, control: str) -> float | None:
    """What is in force there: as recorded last, or as a command has left it since."""
    document = run.document("optimizers") or {"step": -1, "optimizers": []}
    seen = newest(run, place.series(control))
    if seen is not None and seen[0] >= document["step"]:
        return float(f"{seen[1]:.7g}")  # what was stored as float32
    position, number = place.first
    try:
        found = document["optimizers"][position]["groups"][number].get(control)
    except IndexError:
        found = None
    return float(found) if found is not None else seen[1] if seen else None


def in_words(run: Run, control: str, places: tuple[Place, ...], most: int) -> list[str]:
    """Name and value of each place that is no part of another; at most so many, then a count."""
    several = any(place.target.isdigit() for place in places)
    own = [place for place in places[1:] if not several or place.target.isdigit()]
    told = [
        f"{place.title} {short(number)}"
        for place in own[:most]
        if (number := value(run, place, control)) is not None
    ]
    return told + ([f"{len(own) - most} more"] if len(own) > most else [])


def is_setting(series: str) -> bool:
    """Whether a series is what some group of an optimizer steps with, but the first one."""
    control, slash, rest = series.partition("/")
    return bool(slash) and control in OF_OPTIMIZERS and rest.startswith(("group ", "optimizer "))


def _optimizers(run: Run, rank: int) -> list[dict[str, Any]]:
    found = (run.document("optimizers", rank=rank) or {}).get("optimizers", [])
    return list(found) if sum(len(one["groups"]) for one in found) > 1 else []
