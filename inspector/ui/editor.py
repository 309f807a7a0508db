"""A code editor for Python: CodeMirror 6, bundled, loaded from the app itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inspector.ui.components import component

_component = component("editor", "editor", "editor.js", styles=("editor.css",))


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
