"""What a run directory contains: file names, schema, constants; and how one is made.

``runs/NAME/`` holds ``run.json``, ``rank00000.db`` (one per rank), ``control.db`` and ``blobs/``;
``agreed.db`` where several ranks have to agree on the step of a command.
``docs/store.md`` describes the format for readers in other languages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inspector.errors import RunNotFound, StoreError
from inspector.quantities import ABSENT_BITS

FORMAT = 1
RUN_FILE = "run.json"
CONTROL_FILE = "control.db"
AGREEMENT_FILE = "agreed.db"
BLOBS = "blobs"

CHUNK_ROWS = 64
"""Most rows in one chunk."""
STRIPE = 128
"""Series per chunk row: a reader of one series loads one stripe, not the whole width."""
FANOUT = 16
LEVELS = (16, 256, 4096)
"""Rows per bucket of the pyramid's levels 1, 2 and 3; one ``roll`` row holds FANOUT buckets."""

ABSENT = np.array([ABSENT_BITS], np.uint32).view(np.float32)[0]
"""A float32 NaN that means *not measured at this step*; test with :func:`is_absent`."""

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS series(
    id INTEGER PRIMARY KEY, grp TEXT, col INTEGER, quantity TEXT, scope TEXT, subject TEXT,
    UNIQUE(grp, col));
CREATE TABLE IF NOT EXISTS chunk(
    id INTEGER PRIMARY KEY, grp TEXT, stripe INTEGER, row INTEGER, n INTEGER,
    first INTEGER, last INTEGER, t0 REAL, t1 REAL, crc INTEGER, steps BLOB, v BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS chunk_row ON chunk(grp, stripe, row, n, first, last);
CREATE UNIQUE INDEX IF NOT EXISTS chunk_step ON chunk(grp, stripe, last, row, n);
CREATE TABLE IF NOT EXISTS roll(
    id INTEGER PRIMARY KEY, grp TEXT, level INTEGER, stripe INTEGER, row INTEGER,
    crc INTEGER, steps BLOB, v BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS roll_row ON roll(grp, level, stripe, row);
CREATE TABLE IF NOT EXISTS event(
    seq INTEGER PRIMARY KEY, step INTEGER, wall REAL, mono_ns INTEGER, kind TEXT, json TEXT);
CREATE TABLE IF NOT EXISTS document(
    id INTEGER PRIMARY KEY, kind TEXT, step INTEGER, wall REAL, json TEXT);
CREATE INDEX IF NOT EXISTS document_step ON document(kind, step);
CREATE TABLE IF NOT EXISTS histogram(
    id INTEGER PRIMARY KEY, kind TEXT, subject TEXT, step INTEGER, low REAL, high REAL,
    counts BLOB);
CREATE INDEX IF NOT EXISTS histogram_step ON histogram(kind, subject, step);
CREATE TABLE IF NOT EXISTS heartbeat(
    id INTEGER PRIMARY KEY CHECK(id = 1), step INTEGER, state TEXT, total_steps INTEGER,
    wall REAL, beat REAL, facts TEXT);
"""


def is_absent(values: F32) -> Mask:
    """True where a float32 array holds :data:`ABSENT` (and not a NaN that was measured)."""
    absent: Mask = values.view(np.uint32) == np.uint32(ABSENT_BITS)
    return absent


def rank_file(run_dir: Path, rank: int) -> Path:
    return run_dir / f"rank{rank:05d}.db"


def cut_off(rank_db: Path) -> Path:
    """A file beside a rank's that says: its writer has ended, but could not write all it had."""
    return rank_db.with_suffix(".cut-off")


def rank_files(run_dir: Path) -> dict[int, Path]:
    """The rank files that exist, by rank."""
    found = {}
    for path in run_dir.glob("rank*.db"):
        if re.fullmatch(r"rank\d{5}", path.stem):
            found[int(path.stem[4:])] = path
    return dict(sorted(found.items()))


def safe_name(name: str) -> str:
    """``name`` as one component of a path: letters of every script kept, separators not."""
    name = unicodedata.normalize("NFC", name)
    name = re.sub(r'[\x00-\x1f\x7f/\\<>:"|?*\ud800-\udfff]', "-", name).strip(" .")
    while len(name.encode()) > 120:
        name = name[:-1]
    return name.strip(" .") or format(datetime.now(), "run-%Y%m%d-%H%M%S")


def create_run(runs_dir: str | Path, name: str, content: dict[str, Any]) -> Path:
    """Makes ``runs_dir/NAME`` with its ``run.json`` and returns it.

    The name is made safe for a path and unique (``NAME-2``, ``NAME-3``, …); an empty one becomes
    the time of day. ``content`` supplies ``kind``, ``config``, ``script``.

    Raises:
        StoreError: the directory cannot be written.
    """
    base = safe_name(name)
    made: Path | None = None
    try:
        Path(runs_dir).mkdir(parents=True, exist_ok=True)
        path = _unused(Path(runs_dir), base)
        made = path
        (path / BLOBS).mkdir()
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        stamps = {"format": FORMAT, "name": path.name, "created": created}
        write_json(path / RUN_FILE, {"kind": "watched", "config": {}, **content, **stamps})
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "there is a file" if is_file else error.strerror
        raise StoreError(
            f"Expected a directory for runs that can be written at {runs_dir}, but got: "
            f"{reason}; choose another: torch-inspector FOLDER, --run-dir or run_dir=."
        ) from error
    return path


def _unused(runs_dir: Path, base: str) -> Path:
    number = 1
    while True:
        path = runs_dir / (base if number == 1 else f"{base}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def run_path(runs_dir: str | Path, name: str) -> Path:
    """The directory of the run called ``name``, for names that come from a browser or a link.

    Raises:
        RunNotFound: there is none, or the name reaches outside ``runs_dir``.
    """
    path = Path(runs_dir) / name
    plain = name not in ("", ".", "..") and not re.search(r"[/\\\x00]", name)
    if plain and is_run(path) and path.resolve().parent == Path(runs_dir).resolve():
        return path
    raise RunNotFound(f"Expected the name of a run in {runs_dir}, but got {name!r}.")


def is_run(path: Path) -> bool:
    """Whether the directory holds a run; False where nobody here may look."""
    try:
        return (path / RUN_FILE).is_file() or rank_file(path, 0).is_file()
    except OSError:  # someone else's, in a folder that is shared
        return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file in one go: a reader sees the old content or the new, never half."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, default=str)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_run_file(path: Path) -> dict[str, Any]:
    """The content of ``run.json``; empty when the directory has none.

    Raises:
        StoreError: the file holds something else than a JSON object, or a newer format.
    """
    try:
        content = json.loads((path / RUN_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"Expected a JSON object in {path / RUN_FILE}, but got: {error}."
        ) from error
    if not isinstance(content, dict):
        raise StoreError(f"Expected a JSON object in {path / RUN_FILE}, but got {content!r:.40}.")
    version = content.get("format", FORMAT)
    if not isinstance(version, int) or version > FORMAT:
        raise StoreError(
            f"Run {path.name} has format {version!r}, but this version reads up to {FORMAT}; "
            "upgrade torch-inspector."
        )
    return content
