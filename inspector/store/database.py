"""Opening SQLite files: one writing connection a file, any number of reading ones."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from inspector.store.layout import SCHEMA

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|lustre|gpfs|beegfs|ceph|wekafs|afs|9p|orangefs|ocfs2|gfs2|pvfs2"
    r"|fuse\.(?!fuse-overlayfs).*"
)


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes and checkpoints the file; creates the tables.

    Raises sqlite3.Error when the place cannot be written.
    """
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA page_size = 16384")
        # WAL needs memory shared between readers and writer, which network disks do not give.
        db.execute(f"PRAGMA journal_mode = {'TRUNCATE' if on_network(path.parent) else 'WAL'}")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 33554432")
        db.execute("PRAGMA wal_autocheckpoint = 1000")
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    except sqlite3.Error:
        db.close()
        raise
    return db


def open_shared(path: Path, schema: str, *, timeout: float = 10.0) -> sqlite3.Connection:
    """A connection to a small file that several processes write, with its tables made.

    A rollback journal: seldom written, and good on every file system.

    Args:
        timeout: seconds that another writer is waited for.

    Raises sqlite3.Error when the place cannot be written.
    """
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.executescript(schema)
    except sqlite3.Error:
        db.close()
        raise
    return db


def close_writer(db: sqlite3.Connection) -> None:
    """Checkpoints and closes; a file that nobody reads becomes one plain file without WAL."""
    try:
        db.execute("PRAGMA busy_timeout = 100")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error:
        pass  # Readers are open: the WAL stays, and stays readable.
    db.close()


def open_reader(path: Path) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str] | None]:
    """A read-only connection, and the directory of the copy it reads where a copy was needed.

    A WAL file in a directory without write permission cannot be read in place (its shared-memory
    file cannot be made), so it is copied; ``immutable=1`` would miss what is still in the WAL.

    Raises sqlite3.Error when the file is missing or no database.
    """
    try:
        return _connect(path), None
    except sqlite3.OperationalError:
        if not path.is_file():
            raise
    copy = tempfile.TemporaryDirectory(prefix="torch-inspector-")
    try:
        for source in (path, path.with_name(path.name + "-wal")):
            if source.exists():
                shutil.copy(source, copy.name)
        return _connect(Path(copy.name) / path.name), copy
    except (OSError, sqlite3.Error) as error:
        copy.cleanup()
        raise sqlite3.OperationalError(f"neither in place nor as a copy ({error})") from error


def _connect(path: Path) -> sqlite3.Connection:
    db = connect_reader(path, timeout=10)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db


def connect_reader(path: Path, *, timeout: float) -> sqlite3.Connection:
    """A read-only connection, of which nothing has been asked yet.

    Args:
        timeout: seconds that a writer is waited for.
    """
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    return sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )


def on_network(directory: Path) -> bool:
    """Whether the directory lies on a network file system."""
    return bool(_NETWORK.fullmatch(filesystem(directory)))


def filesystem(directory: Path) -> str:
    """Type of the file system that holds the directory; empty where that cannot be told."""
    if sys.platform != "linux":
        return ""
    try:
        lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    except OSError:
        return ""
    real = directory.resolve()
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        if real.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), right.split()[0]
    return kind
