"""What differs between runs: their settings, and what was done to each by hand."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from inspector.commands import Controls
from inspector.config import OPTIMIZER_TITLES, RunConfig
from inspector.errors import InspectorError
from inspector.events import (
    CommandApplied,
    FaultHealed,
    FaultInjected,
    Rewound,
    RunContinued,
    StoredEvent,
)
from inspector.numerals import short
from inspector.store.reader import Run
from inspector.views.optimizers import stepped_by

_OBSERVED = ("lr", "momentum", "weight_decay")
_OF_A_SCRIPT = 1 + len(_OBSERVED)
_KEYS = {title: name for name, title in OPTIMIZER_TITLES.items()}
_BY_HAND = frozenset({item.name for item in fields(Controls)} | {"remedy", "rewind", "stop"})
_LONG = 60
_TOLD = "by_hand."  # among what was done by hand, once it has been


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same in all runs.

    Attributes:
        path: its name as ``torch-inspector train --set`` takes it, such as ``controls.clip``.
        values: one for each run; None where a run does not have the setting.
    """

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Intervention:
    """Something done to a run while it was going on."""

    run: str
    step: int
    what: str


def origin(events: Iterable[StoredEvent]) -> RunContinued | None:
    """The checkpoint of another run that this one went on from, if it did."""
    return next((item.event for item in events if isinstance(item.event, RunContinued)), None)


def parent(origin: RunContinued | None, runs: Sequence[Run], own: Run) -> Run | None:
    """The run among these that ``own`` went on from, by the name it had then or has now."""
    if origin is None or not origin.parent:
        return None
    begun = {run.name: str(run.meta.get("created", "")) for run in (*runs, own)}
    # A name that was given up may be another run's by now: of one that began after the fork.
    elder = [
        run for run in runs
        if run.name != own.name and begun[run.name] <= begun[own.name]
        and origin.parent in (run.name, *run.meta.get("former_names", ()))
    ]  # fmt: skip
    return max(elder, key=lambda run: begun[run.name], default=None)


def settings(run: Run) -> dict[str, Any]:
    """Settings of a run by path; of a script that is watched, what its optimizer began with."""
    if run.config:
        found = flat(run.config)
        lineage = run.meta.get("lineage")
        if isinstance(lineage, dict) and found.get("resume"):
            found["resume"] = f"{lineage.get('parent') or 'a file'}@{lineage.get('step')}"
        return found
    found = {}
    if stepped := stepped_by(run.meta.get("optimizers") or ()):
        found["optimizer"] = _KEYS.get(stepped, stepped)
    for name in _OBSERVED:
        steps = run.series(name, max_points=50).steps[:1]
        if len(steps):
            values = run.series(name, last=int(steps[0])).values
            found[name] = float(f"{values[0]:.6g}")
    return found


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration by paths; a setting that an older version did not know has its default.

    The first controls win over the optimizer's settings, as they do in the run.
    """
    # What a newer version wrote is compared as it stands.
    with contextlib.suppress(InspectorError, TypeError):
        config = RunConfig.from_dict(dict(config)).to_dict()
    found = dict(_leaves(config, ""))
    for name in _OBSERVED:
        value = found.pop(f"controls.{name}", None)
        if value is not None:
            found[name] = value
    return found


def differing(settings: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Settings that differ, in the order of the configuration.

    A run without any settings is left out of the judgement, as is one with only a few (a watched
    script) for those that it does not have.
    """
    complete = [own for own in settings if len(own) > _OF_A_SCRIPT]
    found = []
    paths = dict.fromkeys(path for own in settings for path in own)
    for path in (path for path in paths if not path.startswith(_TOLD)):
        values = [own[path] for own in settings if path in own]
        lacking = any(path not in own for own in complete)
        if lacking or any(value != values[0] for value in values):
            found.append(Difference(path, tuple(own.get(path) for own in settings)))
    return found


def interventions(name: str, events: Iterable[StoredEvent]) -> list[Intervention]:
    """What changed the training of a run after its start, oldest first."""
    found = []
    for stored in events:
        event = stored.event
        if isinstance(event, CommandApplied):
            if event.name.partition(" ")[0] not in _BY_HAND:
                continue
        elif not isinstance(event, (Rewound, FaultInjected, FaultHealed)):
            continue
        found.append(Intervention(name, stored.step, event.text))
    return found


def shown(value: Any) -> str:
    """A setting's value in a few characters."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return short(value, 6)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if "\n" in text:
        return f"{len(text.splitlines())} lines of Python"
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping) and value:
        inner = ((str(key), item) for key, item in value.items())
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        inner = ((str(place), item) for place, item in enumerate(value))
    found = False
    for key, item in inner:
        found = True
        yield from _leaves(item, f"{path}.{key}" if path else key)
    # Nothing chosen is no leaf, whether it is stored as null, a list or a dict.
    if not found and path and value not in (None, "", {}, [], ()):
        yield path, list(value) if isinstance(value, tuple) else value
