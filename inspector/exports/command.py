"""``torch-inspector export`` and ``import``: what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from inspector.errors import ExportError
from inspector.exports.export import Exported, export
from inspector.exports.formats import Form
from inspector.store.reader import open_run
from inspector.views.modules import bytes_text

_FORMS: dict[str, Form] = {"long": "long", "wide": "wide"}


def export_command(
    run: str,
    to: str,
    write: Callable[[str], object],
    *,
    out: Path | None = None,
    checkpoint: str = "last",
    form: str = "long",
    force: bool = False,
    as_json: bool = False,
    runs_dir: Path = Path("runs"),
) -> None:
    """Exports a run and says where to, in words or as one line of JSON.

    Raises:
        InspectorError: see :func:`inspector.exports.export.export`.
    """
    if form not in _FORMS:
        raise ExportError(f"form must be long or wide, but got {form!r}.")
    with open_run(run, runs_dir) as opened:
        made = export(opened, to, out, checkpoint=checkpoint, form=_FORMS[form], force=force)
        name = opened.name
    for line in _told(name, to, made, as_json=as_json):
        write(line)


def _told(run: str, to: str, made: Exported, *, as_json: bool) -> list[str]:
    if as_json:
        content = {"run": run, "to": to, "path": str(made.path), "bytes": made.bytes}
        return [json.dumps({**content, "notes": made.notes, "facts": made.facts})]
    lines = [f"{run} → {made.path} ({bytes_text(made.bytes) or '0 B'})"]
    return lines + [f"  {note}" for note in made.notes]


def import_command(
    source: str,
    path: Path,
    write: Callable[[str], object],
    *,
    runs_dir: Path = Path("runs"),
    name: str = "",
) -> None:
    """Imports a foreign log and says which runs it became.

    Raises:
        ExportError: the tool is unknown, or there is nothing to read.
        StoreError: the runs folder cannot be written.
    """
    from inspector.exports.imported import import_tensorboard

    if source != "tensorboard":
        raise ExportError(f"Expected tensorboard, but got {source!r}; other logs are not read.")
    for made, log in import_tensorboard(path, runs_dir, name):
        points = sum(len(one.steps) for one in log.scalars)
        write(f"{path} → {made} ({len(log.scalars)} series, {points:,} values)")
        for note in log.notes:
            write(f"  {note}")
