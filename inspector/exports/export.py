"""Writing one export: the destination is checked first, and appears only when it is complete."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspector.errors import ExportError
from inspector.exports.formats import Form, Format, Made, Request, find
from inspector.store.layout import safe_name
from inspector.store.reader import Run


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written where; ``bytes`` counts all files."""

    path: Path
    bytes: int
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def export(
    run: Run,
    to: str,
    out: Path | None = None,
    *,
    checkpoint: str = "last",
    form: Form = "long",
    force: bool = False,
) -> Exported:
    """Writes a run in one format.

    Args:
        to: a key of ``formats.FORMATS``.
        out: the file (or folder) to write, or an existing folder in which it gets the run's
            name, unless that is empty and a folder is exported; by default the present folder.
            A folder's ``out`` may end in ``.zip``.
        checkpoint: whose weights a model format takes.
        form: shape of the tables.
        force: replace what is there.

    Raises:
        ExportError: the format is unknown, needs a library, cannot hold this run, or ``out``
            cannot be written.
        InspectorError: the model or its data cannot be built any more.
    """
    wanted = find(to)
    if missing := wanted.missing():
        raise ExportError(missing)
    target = destination(run, wanted, out)
    packed = wanted.folder and target.suffix == ".zip"
    if target.exists() and not force:
        raise ExportError(
            f"Expected a new place to write to, but {target} exists; choose another with --out, "
            "or replace it with --force."
        )
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=_parent(target)) as folder:
            part = Path(folder) / safe_name(run.name + wanted.suffix)
            if wanted.folder:
                part.mkdir()
            made = _make(wanted, Request(run=run, out=part, checkpoint=checkpoint, form=form))
            if packed:
                part = Path(shutil.make_archive(str(part), "zip", part.parent, part.name))
            _put(part, target)
    except OSError as error:
        raise ExportError(
            f"Expected to write {target}, but got: {error.strerror or error}; choose another place "
            "with --out."
        ) from error
    notes = (*made.notes, *run.problems)
    return Exported(target, _bytes(target), notes, made.facts)


def destination(run: Run, wanted: Format, out: Path | None) -> Path:
    """The file or folder that an export writes."""
    name = safe_name(run.name + wanted.suffix)
    if out is None:
        return Path(name)
    return out / name if out.is_dir() and not (wanted.folder and not any(out.iterdir())) else out


def _put(part: Path, target: Path) -> None:
    """An empty folder is filled, not replaced: somebody may stand in it."""
    if target.is_dir() and part.is_dir() and not any(target.iterdir()):
        for child in part.iterdir():
            child.replace(target / child.name)
        return
    if target.is_dir():
        shutil.rmtree(target)
    part.replace(target)


def _make(wanted: Format, request: Request) -> Made:
    place, _, name = wanted.maker.partition(":")
    maker: Callable[[Request], Made] = getattr(importlib.import_module(place), name)
    made = maker(request)
    assert isinstance(made, Made)
    return made


def _parent(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
