"""The checkpoints of a run that are still there, as its events tell of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from inspector.events import CheckpointSaved
from inspector.store.reader import Run


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file.

    Attributes:
        path: relative to the run directory.
        step: number of steps that are completed in it.
        wall: when it was written, seconds since 1970.
        val_loss: the newest validation loss that it knows.
        size: bytes.
    """

    path: str
    step: int
    wall: float
    val_loss: float | None
    size: int

    @property
    def name(self) -> str:
        """What follows the ``@`` of ``RUN@…``: last, best or the step."""
        stem = PurePath(self.path).stem
        return stem if stem in ("last", "best") else str(self.step)


def checkpoints(run: Run) -> list[Checkpoint]:
    """The last and the best, then the others, latest first."""
    found: dict[str, Checkpoint] = {}
    for stored in run.events():
        event = stored.event
        if isinstance(event, CheckpointSaved) and event.at is not None:
            found[event.path] = Checkpoint(
                event.path, event.at, stored.wall, event.val_loss, event.size
            )
    present = [one for one in found.values() if (run.path / one.path).is_file()]
    order = {"last": 0, "best": 1}
    return sorted(present, key=lambda one: (order.get(one.name, 2), -one.step))


def snapshots(run: Run) -> list[int]:
    """Steps of which a live run holds the state in memory, as it said last; earliest first."""
    beat = run.heartbeat
    if beat is None or run.status not in ("running", "paused"):
        return []
    return [int(step) for step in beat.facts.get("snapshots", ())]


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a run that goes on from another one comes from.

    Attributes:
        parent: name of that run; empty for a checkpoint from elsewhere.
        step: number of steps that were completed there.
        kind: fork or resume.
        changes: settings that differ from there on.
    """

    parent: str
    step: int
    kind: str
    changes: dict[str, Any]


def lineage(run: Run) -> Lineage | None:
    """The run's origin; None where it began by itself."""
    told = run.meta.get("lineage")
    if not isinstance(told, dict):
        return None
    changes = told.get("changes")
    return Lineage(
        str(told.get("parent", "")),
        int(told.get("step", 0)),
        str(told.get("kind", "resume")),
        changes if isinstance(changes, dict) else {},
    )
