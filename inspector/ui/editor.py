"""A code editor for Python: CodeMirror 6, bundled, loaded from the app itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from inspector.server.assets import PREFIX

_ASSETS = Path(__file__).parent / "assets"
_LOADER = f"""export default function (component) {{
  const address = new URL("{PREFIX}/editor.js", location.origin).href
  let [gone, cleanup] = [false, null]
  import(address).then((module) => {{ if (!gone) cleanup = module.mount(component) }})
  return () => {{ gone = true; cleanup?.() }}
}}
"""

_component = st.components.v2.component(
    "torch_inspector_editor",
    html='<div class="editor"></div>',
    css=(_ASSETS / "editor.css").read_text("utf-8"),
    js=_LOADER,
)


@dataclass(frozen=True, slots=True)
class Edited:
    """What the editor holds.

    Attributes:
        code: None until something was typed.
        run: whether Ctrl+Enter was pressed just now.
    """

    code: str | None
    run: bool


def editor(code: str, *, revision: int, error_line: int, key: str) -> Edited:
    """Draws the editor.

    Args:
        code: shown when ``revision`` is new; what was typed since is kept otherwise.
        revision: number of this text; raise it to replace what the editor holds.
        error_line: marked, 1-based; 0 for none.
        key: unique on the page.
    """
    data = {"code": code, "revision": revision, "error_line": error_line}
    result = _component(key=key, data=data, on_typed_change=_nothing, on_run_change=_nothing)
    for value, run in ((result.run, True), (result.typed, False)):
        if _of_revision(value, revision):
            return Edited(str(value["code"]), run)
    return Edited(None, run=False)


def _of_revision(value: Any, revision: int) -> bool:
    """Whether the text was typed into the one that is shown now, not into an earlier one."""
    return isinstance(value, dict) and value.get("revision") == revision


def _nothing() -> None:
    """State and triggers need callbacks; their values are read from the result."""
