"""Foreign logs as run directories of kind ``imported``, listed and overlaid like our own."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import ExportError, InspectorError
from inspector.events import Event, Notice, RunFinished, RunStarted
from inspector.exports.event_files import Log, Scalars, event_files, read
from inspector.quantities import SeriesKey
from inspector.store.chunks import Block
from inspector.store.database import close_writer, open_writer
from inspector.store.drain import event_statement
from inspector.store.encoder import Group
from inspector.store.layout import (
    ABSENT,
    BLOBS,
    CHUNK_ROWS,
    F64,
    RUN_FILE,
    create_run,
    is_run,
    rank_file,
    read_run_file,
    safe_name,
    write_json,
)
from inspector.store.resume import claim, set_meta

KIND = "imported"
WALL_SECONDS = 1e-3
"""Between the ends of a chunk times are taken as even; they are kept to within this."""
_DEPTH = 5
_FOLDERS = 5000


def import_tensorboard(place: Path, runs_dir: Path, name: str = "") -> list[tuple[Path, Log]]:
    """Makes a run of each folder of event files at or below ``place``.

    Args:
        name: of the run, where there is one; else of the folder.

    Raises:
        ExportError: there is nothing to read.
        StoreError: the runs folder cannot be written.
    """
    places = [place] if place.is_file() else list(_folders(place))
    if not places:
        read(place)  # says what was expected
    made, refused = [], []
    for one in places:
        try:
            log = read(one)
        except ExportError as error:
            refused.append(error)
            continue
        inner = "" if one == place or place.is_file() else "-".join(one.relative_to(place).parts)
        folder = place.resolve().parent if place.is_file() else place.resolve()
        wanted = "-".join(part for part in (name or folder.name, inner) if part)
        path = create_run(runs_dir, wanted, {"kind": KIND})
        _fill(path, one, log)
        made.append((path, log))
    if refused and not made:
        raise refused[0]
    return made


def refresh(runs_dir: Path) -> list[str]:
    """Takes up event files that lie under the runs folder; names of the runs made or renewed.

    ``runs/NAME/events.out.tfevents…`` becomes the run ``NAME`` in its own folder,
    ``runs/A/B/events…`` the run ``A-B``. What cannot be read is left alone.
    """
    renewed = []
    for place in _folders(runs_dir):
        parts = place.relative_to(runs_dir).parts or ("tensorboard",)
        target = runs_dir / safe_name("-".join(parts))
        state = _state(place)
        with suppress(InspectorError, OSError):
            known = read_run_file(target) if target.is_dir() else {}
            if (known and known.get("kind") != KIND) or known.get("imported") == state:
                continue
            log = read(place)
            (target / BLOBS).mkdir(parents=True, exist_ok=True)
            _fill(target, place, log)
            renewed.append(target.name)
    return renewed


_looking = threading.Lock()
_next_look = 0.0


def look(runs_dir: Path) -> None:
    """Calls :func:`refresh` in the background, seldom enough to go unnoticed."""
    global _next_look
    if time.monotonic() < _next_look or not _looking.acquire(blocking=False):
        return

    def work() -> None:
        global _next_look
        begun = time.monotonic()
        try:
            refresh(runs_dir)
        finally:
            now = time.monotonic()
            _next_look = now + max(5.0, 20 * (now - begun))
            _looking.release()

    threading.Thread(target=work, name="inspector-import", daemon=True).start()


def _folders(root: Path) -> Iterator[Path]:
    """Folders with event files, at most so deep and so many; not those inside our runs."""
    for seen, (folder, inner, files) in enumerate(os.walk(root)):
        place = Path(folder)
        depth = len(place.relative_to(root).parts)
        ours = is_run(place) and not _is_imported(place)
        if ours or depth >= _DEPTH or seen > _FOLDERS:
            inner.clear()
        inner[:] = sorted(one for one in inner if one != BLOBS and not one.startswith("."))
        if not ours and any("tfevents" in one for one in files):
            yield place


def _is_imported(place: Path) -> bool:
    try:
        return read_run_file(place).get("kind") == KIND
    except InspectorError:
        return False


def _state(place: Path) -> dict[str, Any]:
    """Tells whether event files have changed since they were read."""
    sizes = {one.name: one.stat().st_size for one in event_files(place)}
    return {"from": str(place.resolve()), "bytes": sizes}


def _fill(path: Path, place: Path, log: Log) -> None:
    """Writes rank file and ``run.json``; an older rank file is replaced in one go."""
    begin = min(float(one.walls[0]) for one in log.scalars)
    part = path / f".import-{os.getpid()}"
    part.mkdir(exist_ok=True)
    try:
        _write(rank_file(part, 0), place, log)
        rank_file(part, 0).replace(rank_file(path, 0))
    finally:
        for left in part.iterdir():
            left.unlink()
        part.rmdir()
    known = read_run_file(path)
    created = datetime.fromtimestamp(begin, UTC).isoformat(timespec="milliseconds")
    extra = {"kind": KIND, "config": {}, "created": created, "imported": _state(place)}
    write_json(path / RUN_FILE, {"format": 1, "name": path.name, **known, **extra})


def _write(file: Path, place: Path, log: Log) -> None:
    begin = min(float(one.walls[0]) for one in log.scalars)
    end = max(float(one.walls[-1]) for one in log.scalars)
    last = max(int(one.steps[-1]) for one in log.scalars)
    db = open_writer(file)
    try:
        claim(db, file, 0, {"device": ""})
        db.execute("BEGIN IMMEDIATE")
        for name, members in _groups(log.scalars):
            group = Group.empty(name)
            for block in _blocks(name, members):
                for sql, parameters in group.encode([block]):
                    db.execute(sql, tuple(parameters))
        renamed = ", ".join(f"{s.tag} → {s.key.quantity}" for s in log.scalars if _renamed(s))
        told = f"Imported from {place}{f' ({renamed})' if renamed else ''}."
        events: list[tuple[int, float, Event]] = [
            (0, begin, RunStarted(device="")),
            *((0, begin, Notice(message=note)) for note in (told, *log.notes)),
            (last, end, RunFinished(reason="closed")),
        ]
        for step, wall, event in events:
            sql, (_, _, mono, *rest) = event_statement(step, event)
            db.execute(sql, (step, wall, mono, *rest))
        db.execute(
            "INSERT OR REPLACE INTO heartbeat(id, step, state, total_steps, wall, beat, facts) "
            "VALUES (1,?,?,?,?,?,?)",
            (last + 1, "finished", None, end, end, "{}"),
        )
        db.execute("DELETE FROM meta WHERE key = 'writer'")
        set_meta(db, {"closed": end})
        db.execute("COMMIT")
    finally:
        close_writer(db)


def _renamed(one: Scalars) -> bool:
    return one.key.scope == "run" and one.key.quantity != one.tag


def _groups(scalars: tuple[Scalars, ...]) -> Iterator[tuple[str, list[Scalars]]]:
    """Series of one scope with the same steps share a group."""

    def place(one: Scalars) -> tuple[str, bytes]:
        return one.key.scope, one.steps.tobytes()

    ordered = sorted(scalars, key=place)
    for number, (_, members) in enumerate(itertools.groupby(ordered, place)):
        yield f"imported-{number}", list(members)


def _blocks(name: str, members: list[Scalars]) -> Iterator[Block]:
    """Chunks whose times are even enough."""
    keys: tuple[SeriesKey, ...] = tuple(one.key for one in members)
    steps, walls = members[0].steps, members[0].walls
    values = np.stack([one.values for one in members], axis=1)
    # The one bit pattern that means "not measured" must not come from outside.
    values = np.where(np.isnan(values), np.float32(np.nan), values)
    assert not np.any(values.view(np.uint32) == np.array(ABSENT).view(np.uint32))
    start = 0
    while start < len(steps):
        stop = start + _even(walls[start : start + CHUNK_ROWS])
        block = Block(name, keys)
        block.count = stop - start
        block.steps[: block.count] = steps[start:stop]
        block.values[: block.count] = values[start:stop]
        block.start, block.stop = float(walls[start]), float(walls[stop - 1])
        yield block
        start = stop


def _even(walls: F64) -> int:
    """How many of the times, from the first on, lie evenly."""
    count = len(walls)
    while count > 2:
        even = np.linspace(walls[0], walls[count - 1], count)
        if np.abs(even - walls[:count]).max() <= WALL_SECONDS:
            break
        count = count // 2 if count > 8 else count - 1
    return count
