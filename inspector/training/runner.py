"""Starting, finding and stopping built-in runs: a thread of this process, or a child process.

What cannot work is refused before the run exists: ConfigError, ModelError and DataError are raised
by :func:`start`, and nothing is created. An exception of any other kind comes out of the user's own
code; it makes a run that *failed*, with the user's lines of its traceback.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from inspector import catalog
from inspector.commands import Command
from inspector.config import RunConfig
from inspector.errors import ConfigError, InspectorError, ModelError, StoreError
from inspector.store.control import ControlWriter
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.training import process
from inspector.training.checkpoints import keep_origin
from inspector.training.compiling import compiled, forgiving
from inspector.training.continuing import attach, continuation, without_start
from inspector.training.downloads import Progress
from inspector.training.dry_run import dry_run
from inspector.training.failures import failure
from inspector.training.loop import train
from inspector.training.own.code import keep
from inspector.training.reproducibility import deterministic, explain
from inspector.training.task import Task, build_task
from inspector.watching import Watch, watch

_HOLDER = "_torch_inspector_runner"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RunnerState:
    """The run that trains in this process; ``watch`` is gone once it has ended."""

    name: str
    path: Path
    thread: threading.Thread
    watch: weakref.ref[Watch]


def start(
    config: RunConfig,
    runs_dir: Path,
    name: str | None = None,
    *,
    progress: Progress | None = None,
) -> str:
    """Builds the task, tries one batch, creates the run and trains it in the background.

    Args:
        name: of the run, made unique; by default model, data and the time.
        progress: told, in this thread, how far a download is.

    Returns:
        The name of the run; its directory exists.

    Raises:
        ConfigError, ModelError, DataError: it cannot work; nothing was created.
        StoreError: the run directory cannot be written.
    """
    name = name or f"{short(config.model)}-{short(config.data)}-{time.strftime('%H%M%S')}"
    if config.workers or not config.in_process:  # workers forked from the app would hold its locks
        return process.start(config, runs_dir, name, progress)
    with _holder().lock:
        _refuse_second()
        prepared = prepare(config, runs_dir, name, progress)
        if isinstance(prepared, str):
            return prepared
        if prepared.train_loader.num_workers:  # a loader of the user's own
            return process.start(config, runs_dir, name, progress)
        return _start_thread(prepared, runs_dir, name)


def prepare(
    config: RunConfig, runs_dir: Path, name: str, progress: Progress | None = None
) -> Task | str:
    """The task, tried on one batch; or the name of a failed run, if the user's code raised.

    Raises:
        InspectorError: it cannot work; nothing was created.
    """
    try:
        continued = continuation(config, runs_dir)
        task = build_task(config if continued is None else without_start(config), progress)
        if continued is not None:
            task = attach(dataclasses.replace(task, config=config), continued)
        with deterministic(config.deterministic):
            dry_run(task)
        task = compiled(task, progress)
    except InspectorError:
        raise
    except (Exception, SystemExit) as error:
        if (explained := explain(error)) is not None:
            raise ModelError(explained) from error
        path = create_run(runs_dir, name, {"kind": "built_in", "config": config.to_dict()})
        with contextlib.closing(Writer(path)) as writer:
            writer.event(0, failure(error))
        return path.name
    return task


def train_and_record(
    task: Task, runs_dir: Path, name: str, started: Callable[[Watch], None]
) -> None:
    """Trains in the calling thread; an exception of the user's code ends as a failed run.

    Args:
        started: called when the run exists.

    Raises:
        StoreError: the run directory cannot be written.
    """
    config = task.config
    continued = task.resumed
    threads = torch.get_num_threads()
    torch.set_num_threads(
        config.torch_threads or (continued.state["threads"] if continued else threads)
    )
    watched = watch(
        task.model,
        task.optimizer,
        run_dir=runs_dir,
        name=name,
        loss_fn=task.loss_fn,
        loader=task.train_loader,
        scaler=task.precision.scaler,
        kind="built_in",
        config=config.to_dict(),
        controls=continued.in_force if continued else config.controls,
        total_steps=task.total_steps,
        first_step=continued.step if continued else 0,
        lineage=continued.lineage() if continued else None,
    )
    try:
        keep(task.sources, watched.run_path)
        if continued is not None:
            keep_origin(continued.path, watched.run_path)
        started(watched)
        with deterministic(config.deterministic), forgiving(config.compile):
            train(task, watched)
    except (Exception, SystemExit) as error:
        watched.failed(failure(error, task.model))
    finally:
        watched.close()
        torch.set_num_threads(threads)


def current() -> RunnerState | None:
    """The run that trains in this process at the moment."""
    state = _holder().state
    return state if state is not None and state.thread.is_alive() else None


def short(name: str) -> str:
    """A model or data source as a part of a run's name."""
    return catalog.title(name) if catalog.is_own(name) else name.replace(":", "-")


def stop() -> None:
    """Asks the run in this process to stop at the next step boundary; child processes go on."""
    state = current()
    if state is None:
        return
    try:
        with contextlib.closing(ControlWriter(state.path)) as control:
            control.send(Command(name="stop"))
    except StoreError:  # the disk takes no command
        if (watched := state.watch()) is not None:
            watched.stop()


def join(timeout: float | None = None) -> bool:
    """Waits until no run trains in this process; False if one still does after ``timeout`` s."""
    state = current()
    if state is not None:
        state.thread.join(timeout)
    return current() is None


def _start_thread(task: Task, runs_dir: Path, name: str) -> str:
    holder = _holder()
    ready = threading.Event()
    trouble: list[Exception] = []

    def started(watched: Watch) -> None:
        state = RunnerState(watched.run_name, watched.run_path, thread, weakref.ref(watched))
        holder.state = state
        ready.set()

    def work() -> None:
        try:
            train_and_record(task, runs_dir, name, started)
        except Exception as error:
            trouble.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="inspector-training", daemon=True)
    thread.start()
    if not ready.wait(_START_SECONDS):
        raise StoreError(f"Expected the run to begin within {_START_SECONDS:g} s; check the disk.")
    if trouble:
        raise trouble[0]
    assert holder.state is not None
    return holder.state.name


def _refuse_second() -> None:
    state = current()
    if state is not None:
        raise ConfigError(
            f"Run {state.name} is still training in this process, and its seed and threads are "
            "process-wide; stop it first, or set in_process to false."
        )


class _Holder(types.ModuleType):
    """What must survive Streamlit's hot reload and a cleared cache: no file, so never reloaded."""

    state: RunnerState | None
    lock: threading.RLock


def _holder() -> _Holder:
    made = _Holder(_HOLDER)
    made.state, made.lock = None, threading.RLock()
    return cast(_Holder, sys.modules.setdefault(_HOLDER, made))
