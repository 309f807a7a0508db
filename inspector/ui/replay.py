"""The component that steps through a recorded backward pass; it runs in the browser alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import streamlit as st

from inspector.server.assets import PREFIX

_ASSETS = Path(__file__).parent / "assets"
_LOADER = f"""export default function (component) {{
  const address = new URL("{PREFIX}/replay.js", location.origin).href
  let [gone, cleanup] = [false, null]
  import(address).then((module) => {{ if (!gone) cleanup = module.mount(component) }})
  return () => {{ gone = true; cleanup?.() }}
}}
"""

_component = st.components.v2.component(
    "torch_inspector_replay",
    html='<div class="replay"></div>',
    css=(_ASSETS / "replay.css").read_text("utf-8"),
    js=_LOADER,
)


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
