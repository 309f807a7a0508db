"""Starting, finding and stopping built-in runs: a thread of this process, or a child process.

What cannot work is refused before the run exists: ConfigError, ModelError and DataError are raised
by :func:`start`, and nothing is created. An exception of any other kind comes out of the user's own
code; it makes a run that *failed*, with the user's lines of its traceback.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from inspector.commands import Command
from inspector.config import RunConfig
from inspector.errors import ConfigError, InspectorError, StoreError
from inspector.store.control import ControlWriter
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.training.downloads import Progress
from inspector.training.dry_run import dry_run
from inspector.training.failures import failure
from inspector.training.loop import train
from inspector.training.task import Task, build_task
from inspector.watching import Watch, watch

_HOLDER = "_torch_inspector_runner"


@dataclass(slots=True)
class RunnerState:
    """A built-in run that this process started.

    Attributes:
        name, path: the run and its directory.
        thread: the training thread, for a run inside this process.
        process: the child, for a run outside it.
    """

    name: str
    path: Path
    thread: threading.Thread | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        return self.thread is not None and self.thread.is_alive()


def start(
    config: RunConfig,
    runs_dir: Path,
    name: str | None = None,
    *,
    progress: Progress | None = None,
) -> str:
    """Builds the task, tries one batch, creates the run and trains it in the background.

    Args:
        name: of the run; made unique. Default: the preset's or model's name and the time.
        progress: told how far a download is; called in this thread.

    Returns:
        The name of the run, which exists by then.

    Raises:
        ConfigError, ModelError, DataError: it cannot work; nothing was created.
        StoreError: the run directory cannot be written.
    """
    with _starting():
        _refuse_second(config)
        built = _build(config, progress)
        if isinstance(built, Exception):
            return _failed_run(config, Path(runs_dir), name, built)
        if not config.in_process:
            return _start_child(config, Path(runs_dir), name)
        return _start_thread(built, Path(runs_dir), name)
