"""Files and folders near the app's working folder, to choose from; any other path can be typed."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

_MOST = 60
_SKIPPED = {"node_modules", "runs", "__pycache__", "build", "dist", "site-packages"}


def path_field(
    label: str,
    current: str,
    suffixes: tuple[str, ...],
    key: str,
    *,
    more: dict[str, str] | None = None,
) -> str:
    """A path, chosen or typed; empty while there is none. No suffixes means a folder.

    Args:
        more: what else is offered, before the files, and how it is shown.
    """
    named = more or {}
    options = [*named, *nearby(suffixes)]
    if current and current not in options:
        options = [current, *options]
    chosen = st.selectbox(
        label,
        options,
        index=options.index(current) if current else None,
        accept_new_options=True,
        format_func=lambda name: named.get(name, name),
        placeholder="Choose, or type a path",
        key=key,
    )
    return (chosen or "").strip()


def nearby(suffixes: tuple[str, ...]) -> list[str]:
    """Relative paths in the working folder and in its folders."""
    here = Path.cwd()
    found: list[str] = []
    for folder in (here, *(child for child in _entries(here) if _is_open(child))):
        for child in _entries(folder):
            fits = child.suffix.lower() in suffixes and child.is_file()
            if (fits if suffixes else _is_open(child)) and not child.name.startswith((".", "_")):
                found.append(str(child.relative_to(here)))
    return found[:_MOST]


def stamp(path: str) -> float:
    """When a file was changed last, to notice edits; 0 if it cannot be seen."""
    try:
        return Path(path).expanduser().stat().st_mtime
    except OSError:
        return 0.0


def _is_open(path: Path) -> bool:
    named = path.name not in _SKIPPED and not path.name.startswith((".", "_"))
    return named and path.is_dir() and not path.is_symlink()


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries)[: 20 * _MOST]
    except OSError:
        return []
