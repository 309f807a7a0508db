"""Telemetry as an offline run of Weights & Biases, written by its own library.

No account and no network are needed: the library's local process writes one ``.wandb`` file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import ExportError
from inspector.exports.formats import Made, Request
from inspector.exports.tables import column
from inspector.store.layout import is_absent
from inspector.store.reader import RawRows, Run

_PROJECT = "torch-inspector"
_OFF = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
}


def wandb(request: Request) -> Made:
    """Writes one offline run a rank, its history with the steps and times of ours.

    Raises:
        ExportError: the library could not write it.
    """
    run = request.run
    rows = sum(_rank(run, rank, request.out) for rank in run.ranks)
    upload = "wandb sync FOLDER/offline-run-*"
    return Made(notes=(f"{rows:,} steps; upload them with: {upload}.",), facts={"steps": rows})


def _rank(run: Run, rank: int, out: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="torch-inspector-wandb-") as scratch:
        with _environment(Path(scratch)):
            import wandb as library

            try:
                count = _log(library, run, rank, Path(scratch))
            except library.errors.Error as error:
                raise ExportError(
                    f"Weights & Biases could not write run {run.name}: {error}."
                ) from error
        for made in (Path(scratch) / "wandb").glob("offline-run-*"):
            for part in ("logs", "tmp"):  # of interest to the library's authors only
                shutil.rmtree(made / part, ignore_errors=True)
            shutil.move(made, out / made.name)
    return count


def _log(library: Any, run: Run, rank: int, scratch: Path) -> int:
    several = len(run.ranks) > 1
    settings = library.Settings(
        mode="offline", silent=True, console="off", disable_git=True, disable_code=True,
        save_code=False, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
        x_save_requirements=False,
    )  # fmt: skip
    logged = library.init(
        project=_PROJECT,
        name=f"{run.name}-rank{rank}" if several else run.name,
        group=run.name if several else None,
        config=run.config,
        dir=scratch,
        settings=settings,
        reinit="create_new",
    )
    count = 0
    try:
        for window in run.raw(rank=rank):
            for step, wall, values in _steps(window):
                logged.log({**values, "_timestamp": wall}, step=step)
                count += 1
    finally:
        logged.finish()
    return count


def _steps(window: list[RawRows]) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Step, time and everything measured at it, over all groups of a window."""
    merged: dict[int, tuple[float, dict[str, float]]] = {}
    for rows in window:
        names = [column(key) for key in rows.keys]
        present = ~is_absent(rows.values)
        for at, (step, wall) in enumerate(zip(rows.steps, rows.walls, strict=True)):
            _, values = merged.setdefault(int(step), (float(wall), {}))
            for one in np.flatnonzero(present[:, at]):
                values[names[one]] = float(rows.values[one, at])
    for step in sorted(merged):
        wall, values = merged[step]
        yield step, wall, values


@contextlib.contextmanager
def _environment(scratch: Path) -> Iterator[None]:
    """Nothing is sent anywhere, and nothing is left behind in the home folder."""
    places = {
        name: str(scratch / name)
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
    }
    wanted = {**_OFF, **places}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
