"""The list of runs: one short look at each directory."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from inspector.errors import StoreError
from inspector.store.layout import is_run, rank_file, read_run_file
from inspector.store.rank import RankFile
from inspector.store.records import RunSummary

_Signature = tuple[tuple[int, int], ...]
_FINAL = ("finished", "stopped", "failed")
_known: dict[str, tuple[_Signature, RunSummary]] = {}


def list_runs(runs_dir: str | Path) -> list[RunSummary]:
    """Every run in the directory, newest first; none when there is no such directory.

    A run that cannot be read is listed with status ``unreadable`` and the reason. Runs that ended
    are remembered until their files change.
    """
    try:
        paths = [path for path in Path(runs_dir).iterdir() if is_run(path)]
    except OSError:
        return []
    return sorted(map(_remembered, paths), key=lambda run: (run.created, run.name), reverse=True)


def _remembered(path: Path) -> RunSummary:
    signature = _signature(path)
    known = _known.get(str(path))
    if known is not None and known[0] == signature:
        return known[1]
    summary = summarize(path)
    if summary.status in _FINAL:
        _known[str(path)] = (signature, summary)
    return summary


def _signature(path: Path) -> _Signature:
    db = rank_file(path, 0)
    found = []
    for file in (path / "run.json", db, db.with_name(db.name + "-wal")):
        try:
            status = file.stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def summarize(path: Path) -> RunSummary:
    """One run's line; never raises for a run that is broken."""
    created = 0.0
    try:
        created = path.stat().st_mtime
        content = read_run_file(path)
        created = _timestamp(content.get("created"), created)
        config = content.get("config")
        config = config if isinstance(config, dict) else {}
        summary = _read(path, created, str(content.get("kind", "")), config)
        optimizers = tuple(one for one in content.get("optimizers") or () if isinstance(one, dict))
        return replace(summary, script=str(content.get("script") or ""), optimizers=optimizers)
    except (StoreError, OSError) as error:
        return RunSummary(path.name, str(path), "unreadable", created=created, reason=str(error))


def _timestamp(text: object, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return otherwise


def _read(path: Path, created: float, kind: str, config: dict[str, object]) -> RunSummary:
    file = rank_file(path, 0)
    if not file.exists():
        return RunSummary(path.name, str(path), "empty", kind, created, created, config=config)
    problems: list[str] = []
    rank = RankFile(file, 0, problems.append)
    try:
        ready = rank.ready()
        beat, status = (rank.heartbeat(), rank.status()) if ready else (None, "empty")
    finally:
        rank.close()
    if problems:
        raise StoreError(problems[0])
    return RunSummary(
        path.name,
        str(path),
        status,
        kind,
        created,
        beat.wall if beat else created,
        beat.step if beat else None,
        beat.total_steps if beat else None,
        config,
    )
