"""The component that steps through a recorded backward pass; it runs in the browser alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from inspector.server.assets import PREFIX
from inspector.ui.components import component

_component = component("replay", "replay", "replay.js", styles=("replay.css",))


def identity(view: dict[str, Any]) -> str:
    """Names a recorded pass: the position is kept as long as it stays the same."""
    return hashlib.sha256(json.dumps(view, sort_keys=True).encode()).hexdigest()[:16]


def replay_player(
    view: dict[str, Any], *, at: int, stop: str, presenter: bool, key: str
) -> int | None:
    """Draws the player and returns where the viewer is now; None before the first step.

    Args:
        view: what ``inspector.views.replay.replay`` made.
        at: position to begin at, in nodes that have run.
        stop: a break condition to run to at once (``nonfinite``), or "".
        presenter: large type.
        key: unique on the page.
    """
    name = identity(view)
    data = {
        "id": name, "view": view, "at": at, "stop": stop, "presenter": presenter,
        "assets": PREFIX,
    }  # fmt: skip
    result = _component(key=key, data=data, on_at_change=_nothing)
    reported = result.at
    if isinstance(reported, dict) and reported.get("id") == name:
        return int(reported.get("at", 0))
    return None


def _nothing() -> None:
    """State needs a callback; its value is read from the result."""
