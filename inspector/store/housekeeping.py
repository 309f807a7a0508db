"""Renaming runs and putting them into the trash; only runs that have ended."""

from __future__ import annotations

from pathlib import Path

from inspector.errors import StoreError
from inspector.store.layout import RUN_FILE, read_run_file, run_path, safe_name, write_json
from inspector.store.summary import summarize

TRASH = ".trash"
"""Folder beside the runs that deleted ones are moved to; nothing empties it."""

_LIVE = ("running", "paused")


def rename_run(runs_dir: str | Path, name: str, wanted: str) -> str:
    """Gives a run another name, made safe for a path; returns it.

    Raises:
        StoreError: there is no such run, it is still going, the name is taken or empty, or the
            folder cannot be written.
    """
    path = _ended(runs_dir, name)
    if not wanted.strip():
        raise StoreError("Expected a name with at least one letter or digit, but got none.")
    new = path.with_name(safe_name(wanted))
    if new.name == name:
        return name
    if new.exists():
        raise StoreError(f"There is a run {new.name} already; choose another name.")
    _move(path, new)
    content = read_run_file(new)
    if content:
        former = [*content.get("former_names", ()), name]  # its forks know it by that
        write_json(new / RUN_FILE, {**content, "name": new.name, "former_names": former})
    return new.name


def trash_run(runs_dir: str | Path, name: str) -> Path:
    """Moves a run to ``.trash`` and returns where it is; move it back to see it again.

    Raises:
        StoreError: there is no such run, it is still going, or the folder cannot be written.
    """
    path = _ended(runs_dir, name)
    trash = path.parent / TRASH
    try:
        trash.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"Expected to write to {trash}, but got: {error.strerror}.") from error
    target, number = trash / name, 1
    while target.exists():
        number += 1
        target = trash / f"{name}-{number}"
    _move(path, target)
    return target


def _ended(runs_dir: str | Path, name: str) -> Path:
    path = run_path(runs_dir, name)
    status = summarize(path).status
    if status in _LIVE:
        raise StoreError(f"Run {name} is {status}; stop it first.")
    return path


def _move(path: Path, new: Path) -> None:
    try:
        path.rename(new)
    except OSError as error:
        raise StoreError(f"Expected to move {path} to {new}, but got: {error.strerror}.") from error
