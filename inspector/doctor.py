"""Whether this machine has what the inspector needs, as lines a person can act on."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

_NEEDED = {
    "torch": (2, 10),
    "torchvision": (0, 25),
    "numpy": (2, 0),
    "streamlit": (1, 67),
    "plotly": (6, 5),
    "scikit-learn": (1, 5),
    "torchviz": (0, 0, 3),
}
_SQLITE = (3, 37)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``remedy`` is empty when all is well."""

    subject: str
    found: str
    remedy: str = ""
    needed: bool = True


def report(console: Console | None = None) -> int:
    """Prints every finding; the exit code is 1 if something that is needed is wrong."""
    console = console or Console()
    findings = list(examine())
    for one in findings:
        mark = "ok   " if not one.remedy else "WRONG" if one.needed else "note "
        line = f"{mark} {one.subject}: {one.found}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        if one.remedy:
            console.print(f"      → {one.remedy}", markup=False, highlight=False, soft_wrap=True)
    wrong = [one for one in findings if one.remedy and one.needed]
    console.print(f"{len(wrong)} things to mend." if wrong else "Everything needed is here.")
    return 1 if wrong else 0


def examine() -> Iterator[Finding]:
    """Looks at versions, devices, the store and the optional programs."""
    yield _version("Python", platform.python_version(), (3, 11), "install Python 3.11 or newer")
    for package, least in _NEEDED.items():
        yield _package(package, least)
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("devices", _devices),
        ("sqlite", _sqlite),
        ("data folder", _data),
        ("graphviz", _graphviz),
    )
    for subject, check in checks:
        try:
            yield check()
        except Exception as error:  # a broken installation can raise anything
            yield Finding(subject, f"{type(error).__name__}: {error}", "reinstall torch-inspector")


def _package(package: str, least: tuple[int, ...]) -> Finding:
    remedy = f"pip install '{package}>={'.'.join(map(str, least))}'"
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "not installed", remedy)
    return _version(package, version, least, remedy)


def _version(subject: str, version: str, least: tuple[int, ...], remedy: str) -> Finding:
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
    return Finding(subject, version, "" if numbers >= least else remedy)


def _devices() -> Finding:
    torch = importlib.import_module("torch")
    found = [f"CPU with {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        found.append(f"cuda:{index} {torch.cuda.get_device_name(index)}")
    if torch.backends.mps.is_available():
        found.append("mps")
    remedy = ""
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        remedy = (
            "a graphics card is here, but this PyTorch cannot use it; "
            "install a build for your driver (pytorch.org/get-started)"
        )
    return Finding("devices", ", ".join(found), remedy, needed=False)


def _sqlite() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "try.db")
        mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        db.close()
    found = f"{sqlite3.sqlite_version}, journal mode {mode}"
    old = sqlite3.sqlite_version_info < _SQLITE
    return Finding("sqlite", found, f"use a Python with SQLite ≥ 3.37 ({sys.executable})" * old)


def _data() -> Finding:
    downloads = importlib.import_module("inspector.training.downloads")
    folder: Path = downloads.folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        remedy = "set TORCH_INSPECTOR_DATA to a folder that can be written"
        return Finding("data folder", f"{folder}: {error.strerror}", remedy, needed=False)
    free = shutil.disk_usage(existing).free / 1e9
    remedy = "" if free > 1 else "free some space; CIFAR-10 alone needs 0.2 GB"
    return Finding("data folder", f"{folder}, {free:.1f} GB free", remedy, needed=False)


def _graphviz() -> Finding:
    # Graphs are laid out in the browser; the program is only for files of one's own.
    dot = shutil.which("dot")
    return Finding("graphviz", dot or "no dot program; not needed, the app draws without it")
