"""Resuming and forking runs: the same start, from the present state of another run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inspector.commands import Command, Controls
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.events import CommandApplied, CommandRefused
from inspector.store.control import ControlWriter
from inspector.store.layout import run_path
from inspector.store.reader import Run
from inspector.training import checkpoints, runner
from inspector.training.continuing import base_config
from inspector.training.downloads import Progress

_CHECKPOINT_SECONDS = 60.0
_LOOK_SECONDS = 0.05


def config_from(
    reference: str, runs_dir: Path, changes: Mapping[str, Any] | None = None
) -> RunConfig:
    """The configuration that goes on from a checkpoint, with these settings changed.

    Args:
        reference: see :func:`inspector.training.checkpoints.locate`.
        changes: settings or controls by name; ``lr``, ``momentum`` and ``weight_decay`` are the
            controls.

    Raises:
        ConfigError, CommandError: there is no such checkpoint, setting or value.
    """
    path = checkpoints.locate(reference, runs_dir)
    config = base_config(checkpoints.read(path))
    settings: dict[str, Any] = {"resume": str(path)}
    controls = config.controls
    for given, value in (changes or {}).items():
        name = given.removeprefix("controls.")
        if name == "schedule" and isinstance(value, str):
            value = {"name": value}
        if name in Controls.__slots__:
            controls = controls.with_value(name, value)
        elif "." in name:
            config = config.with_setting(f"{name}={json.dumps(value)}")
        else:
            settings[name] = value
    return RunConfig.from_dict({**config.to_dict(), **settings, "controls": controls})


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """Changes out of ``key=value``; values are JSON where that is possible, else text.

    Raises:
        ConfigError: there is no ``=``.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"Expected key=value, but got {assignment!r}.")
        try:
            changes[name.strip()] = json.loads(text)
        except ValueError:
            changes[name.strip()] = text
    return changes


def fork(
    run: str,
    at: str,
    runs_dir: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Starts a run that goes on from a checkpoint of another one; the name of the new run.

    It trains in a child process while another run trains in this one.

    Args:
        at: a step, ``last``, ``best``; or of a live run, which writes a checkpoint first, ``now``,
            ``earliest`` or the step of a snapshot that it holds in memory.

    Raises:
        InspectorError: it cannot work; nothing was created.
    """
    config = config_from(fork_reference(f"{run}@{at}", runs_dir), runs_dir, changes)
    if runner.current() is not None:
        config = dataclasses.replace(config, in_process=False)
    kind = "fork" if changes and set(changes) - {"steps", "epochs"} else "resumed"
    return runner.start(config, runs_dir, name or f"{run}-{kind}", progress=progress)


def fork_reference(run: str, runs_dir: Path) -> str:
    """A reference to a checkpoint that is there; of a live run, one that it writes for this.

    It does so for ``RUN``, ``RUN@now``, and where there is no such file for ``RUN@STEP`` and
    ``RUN@earliest``, which mean states that it holds in memory. Anything else stays as it is.

    Raises:
        InspectorError: there is no such run, or it cannot write one.
    """
    name, _, at = run.rpartition("@") if "@" in run else (run, "", "")
    in_memory = at == "earliest" or at.isdecimal()
    if in_memory:
        with contextlib.suppress(ConfigError):
            checkpoints.locate(run, runs_dir)
            return run
    elif at not in ("", "now"):
        return run
    with Run(run_path(runs_dir, name)) as opened:
        live = opened.status in ("running", "paused")
    if in_memory:
        step = int(at) if at.isdecimal() else at
        return str(checkpoint_now(name, runs_dir, of=step)) if live else run
    return str(checkpoint_now(name, runs_dir)) if live or at else f"{name}@last"


def checkpoint_now(
    run: str, runs_dir: Path, *, of: int | str | None = None, wait: float = _CHECKPOINT_SECONDS
) -> Path:
    """Asks a live run for a checkpoint and waits for it; the file.

    Args:
        of: the step of a snapshot that it holds in memory, or ``earliest``; the present state
            when left out.

    Raises:
        ConfigError: the run has ended, refused, or did not reach the end of a step in time.
    """
    path = run_path(runs_dir, run)
    command = Command(name="checkpoint", value=of)
    end = time.monotonic() + wait
    with Run(path) as opened:
        if opened.status not in ("running", "paused"):
            raise ConfigError(f"Run {run} is {opened.status}; fork from one of its checkpoints.")
        with contextlib.closing(ControlWriter(path)) as control:
            control.send(command)
        while time.monotonic() < end:
            for stored in opened.events():
                event = stored.event
                if isinstance(event, CommandApplied) and event.command_id == command.id:
                    return path / str(event.effective)
                if isinstance(event, CommandRefused) and event.command_id == command.id:
                    raise ConfigError(f"Run {run} refused: {event.reason}")
            if opened.status not in ("running", "paused"):
                break
            time.sleep(_LOOK_SECONDS)
    raise ConfigError(
        f"Run {run} did not write a checkpoint within {wait:g} s; try again at its next step."
    )
