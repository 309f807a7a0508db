"""The files of checkpoints: written in one go, read without executing anything, found by name.

``docs/checkpoints.md`` lists what is in them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import ConfigError, StoreError

FORMAT = 1
FOLDER = Path("blobs") / "checkpoints"
ORIGIN = Path("blobs") / "origin.pt"

State = dict[str, Any]

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)


def file_name(reason: str, step: int) -> str:
    """``last.pt`` and ``best.pt`` are replaced, all others are kept under their step."""
    return f"{reason}.pt" if reason in ("last", "best") else f"step-{step:06d}.pt"


def write(path: Path, state: State) -> int:
    """Writes the file beside its place and moves it there; its size in bytes.

    Raises:
        StoreError: the disk is full, or the folder cannot be written; the old file stays.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        size = part.stat().st_size
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps what the disk says
        part.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
        raise StoreError(said) from error
    return size


def read(path: Path, *, device: str = "cpu") -> State:
    """What :func:`write` has written.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is something else.
    """
    try:
        state: Any = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"Expected a checkpoint at {path}, but there is no such file.") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"Checkpoint {path} cannot be read: {first:.200}") from error
    known = isinstance(state, dict) and {"model", "optimizer", "config", "step"} <= set(state)
    if not known or "random" not in state:
        raise ConfigError(
            f"Expected a checkpoint of a run in {path}, but it holds something else; weights alone "
            "are given with the setting weights."
        )
    if state.get("format", 0) > FORMAT:
        raise ConfigError(
            f"Checkpoint {path} has format {state['format']}, but this version reads up to "
            f"{FORMAT}; upgrade torch-inspector."
        )
    return dict(state)


def locate(reference: str, runs_dir: Path) -> Path:
    """The file that ``RUN@STEP``, ``RUN@last``, ``RUN@best``, ``RUN`` or a path means.

    Raises:
        ConfigError: there is none; the message lists what there is.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return path.resolve()
    name, _, wanted = reference.rpartition("@") if "@" in reference else (reference, "", "last")
    folder = runs_dir / name / FOLDER
    if not name or not (runs_dir / name).is_dir() or Path(name).name != name:
        raise ConfigError(
            f"Expected the path of a checkpoint, or RUN@STEP with a run in {runs_dir}, "
            f"but got {reference!r}."
        )
    if wanted in ("last", "best") and (folder / f"{wanted}.pt").is_file():
        return (folder / f"{wanted}.pt").resolve()
    steps = {file: step_of(file) for file in sorted(folder.glob("*.pt"), reverse=True)}
    for file, step in steps.items():
        if wanted == str(step):
            return file.resolve()
    there = ", ".join(
        str(step) if file.stem.startswith("step-") else f"{file.stem} ({step})"
        for file, step in sorted(steps.items(), key=lambda pair: pair[1])
    )
    raise ConfigError(
        f"Run {name} has no checkpoint {wanted!r}; it has {there or 'none'}. "
        "Give RUN@STEP, RUN@last or RUN@best."
    )


def keep_origin(path: Path, run_path: Path) -> None:
    """Gives the checkpoint that a run goes on from a second name in it.

    Its parent may be renamed, deleted, or write another ``last.pt``. Nothing is copied: where the
    file system has no hard links there is no second name.
    """
    with contextlib.suppress(OSError):
        (run_path / ORIGIN).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, run_path / ORIGIN)


def step_of(file: Path) -> int:
    """Number of completed steps in a checkpoint; -1 if the file cannot be read."""
    stem = file.stem.removeprefix("step-")
    if stem.isdecimal():
        return int(stem)
    try:
        return int(torch.load(file, weights_only=True, mmap=True)["step"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        return -1


def plain(value: Any, path: str, lost: list[str]) -> Any:
    """A copy with tensors on the CPU, in which all is of types that are read without executing.

    Args:
        path: what the value is called in ``lost``, to which the names of all that had to be left
            out are added.
    """
    if isinstance(value, Tensor):
        # A clone, since the training goes on while the state may wait to be written.
        return value.detach().to("cpu", copy=True) if not value.is_cpu else value.detach().clone()
    if isinstance(value, dict):
        return {
            plain(key, path, lost): plain(held, f"{path}.{key}", lost)
            for key, held in value.items()
        }
    if isinstance(value, (list, tuple, set)):
        kind = tuple if isinstance(value, tuple) else type(value)
        return kind(plain(held, f"{path}.{place}", lost) for place, held in enumerate(value))
    if type(value) in _PLAIN:
        return value
    for simple in (bool, int, float, str):  # of NumPy's, or an enumeration's
        if isinstance(value, simple):
            return simple(value)
    lost.append(path)
    return None
