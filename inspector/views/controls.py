"""Which controls are in force in a run, read from its configuration and its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from inspector.commands import OF_OPTIMIZERS, Controls, covers_first
from inspector.errors import CommandError, ConfigError
from inspector.events import CommandApplied, CommandRefused, StoredEvent

_NAMES = frozenset(item.name for item in fields(Controls))


def in_force(config: dict[str, Any], events: Iterable[StoredEvent]) -> Controls:
    """The run's first controls, changed by every command that was applied since.

    ``config`` is the run's configuration as stored; a watched script has none, its optimizer's
    own learning rate, momentum and weight decay then stay None until a command sets them.
    """
    controls = Controls()
    for name, value in _initial(config).items():
        controls = _changed(controls, name, value)
    for stored in events:
        if (
            isinstance(stored.event, CommandApplied)
            and stored.event.name in _NAMES
            and covers_first(stored.event.target)
        ):
            controls = _changed(controls, stored.event.name, stored.event.effective)
    return controls


def in_parts(events: Iterable[StoredEvent]) -> list[CommandApplied]:
    """What was set by hand in one optimizer or parameter group and still is, oldest first.

    Those that hold the first group are among the controls of :func:`in_force`.
    """
    found: dict[tuple[str, str], CommandApplied] = {}
    for stored in events:
        event = stored.event
        if not isinstance(event, CommandApplied) or event.name not in OF_OPTIMIZERS:
            continue
        for name, target in list(found):
            inside = event.target == "" or f"{target}/".startswith(f"{event.target}/")
            if name == event.name and inside:
                del found[name, target]
        if not covers_first(event.target):
            found[event.name, event.target] = event
    return list(found.values())


def answers(events: Iterable[StoredEvent]) -> dict[str, CommandApplied | CommandRefused]:
    """The answer to each command that has one, by command id."""
    return {
        stored.event.command_id: stored.event
        for stored in events
        if isinstance(stored.event, (CommandApplied, CommandRefused))
    }


def _initial(config: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {
        name: config[name] for name in ("lr", "momentum", "weight_decay") if name in config
    }
    given = config.get("controls")
    if isinstance(given, dict):
        own |= {name: value for name, value in given.items() if value is not None}
    return own


def _changed(controls: Controls, name: str, value: Any) -> Controls:
    try:
        return controls.with_value(name, value)
    except (CommandError, ConfigError):  # written by a newer version: keep what we understand
        return controls
