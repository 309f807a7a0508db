"""A run's own Python: the texts it keeps, and which of the files have been edited since."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 4 << 20


@dataclass(frozen=True, slots=True)
class Edited:
    """A file that reads differently now.

    Attributes:
        name: as the run keeps it.
        at: when it was changed, seconds since 1970; 0 if it is gone.
        difference: unified, from what the run used to what the file holds now.
    """

    name: str
    at: float
    difference: str


def kept_sources(run_path: Path) -> dict[str, str]:
    """The texts that a run was started with, by name; empty if it ran none of the user's own."""
    folder = run_path / "blobs" / "source"
    return {
        str(path.relative_to(folder)): _text(path)
        for path in sorted(folder.rglob("*.py"))
        if path.is_file()
    }


def edited_sources(run_path: Path) -> list[Edited]:
    """What was edited since the run began; typed code is never, since it lies in no file."""
    try:
        origins = json.loads(_text(run_path / "blobs" / "source.json") or "{}")
    except ValueError:
        return []
    found = []
    for name, origin in origins.items() if isinstance(origins, dict) else ():
        kept, path = run_path / "blobs" / "source" / str(name), Path(str(origin))
        before, now = _text(kept), _text(path)
        if before != now:
            at = path.stat().st_mtime if path.is_file() else 0.0
            found.append(Edited(str(name), at, _difference(before, now, str(name))))
    return found


def _difference(before: str, now: str, name: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), now.splitlines(), f"{name} of this run", f"{name} now", lineterm=""
    )
    return "\n".join(lines)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            return ""
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
