"""A run in the terminal: a progress bar read from the run directory, and one last line."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from inspector.commands import Command
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.numerals import short
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.views.newest import newest
from inspector.views.state import lost

_LOOK_SECONDS = 0.2
_ENDED = ("finished", "stopped", "failed", "crashed")


def start(config: RunConfig, runs_dir: Path, name: str | None) -> str:
    """Starts the run; a download shows its progress.

    Raises:
        InspectorError: it cannot work.
    """
    from inspector.training import runner

    with _bar(Console()) as bar:
        download: list[TaskID] = []

        def progress(text: str, share: float) -> None:
            if not download:
                download.append(bar.add_task(text, total=1.0))
            bar.update(download[0], description=text, completed=share)

        return runner.start(config, runs_dir, name, progress=progress)


def check(what: str, config: RunConfig, steps: int | None, say: Callable[[str], None]) -> int:
    """Runs the check ``overfit`` or ``reproducibility`` and says what it has found.

    Returns:
        The exit code: 0 passed, 1 not.

    Raises:
        InspectorError: there is no such check, or the configuration cannot work.
    """
    from inspector.training.checks import (
        COMPARED_STEPS,
        OVERFIT_STEPS,
        check_overfit,
        check_reproducibility,
    )

    with _bar(Console()) as bar:
        task = bar.add_task("starting", total=1.0)

        def told(text: str, share: float) -> None:
            bar.update(task, description=text, completed=share)

        if what == "overfit":
            verdict = check_overfit(config, steps or OVERFIT_STEPS, told)
            passed, text, meaning = verdict.learned, verdict.text, verdict.meaning
        elif what == "reproducibility":
            found = check_reproducibility(config, steps or COMPARED_STEPS, told)
            passed, text, meaning = found.same, found.text, found.meaning
        else:
            raise ConfigError(f"check is overfit or reproducibility, but got {what!r}.")
    say(text)
    if meaning:
        say(meaning)
    return 0 if passed else 1


def follow(path: Path) -> int:
    """Shows the progress until the run ends, then one line about it.

    Ctrl-C and SIGTERM, as batch systems and containers send it, stop the run in good order.

    Returns:
        The exit code: 0 finished or stopped, 1 failed or crashed.
    """
    console = Console()
    with Run(path) as run, _terminable():
        try:
            _show(run, console)
        except KeyboardInterrupt:
            console.print("Stopping at the next step …")
            with contextlib.closing(ControlWriter(path)) as control:
                control.send(Command(name="stop"))
            _show(run, console)
        console.print(summary(run), markup=False, highlight=False, soft_wrap=True)
        return 0 if run.status in ("finished", "stopped") else 1


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is a Ctrl-C inside."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are not for it
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def summary(run: Run) -> str:
    """One line: how the run ended, after how many steps, with which losses."""
    steps = run.series("loss", max_points=2).steps
    parts = [f"{run.name} {run.status} after {int(steps[-1]) + 1 if len(steps) else 0} steps"]
    for name in ("loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"):
        values = run.series(name).values
        if len(values):
            parts.append(f"{name} {short(values[-1])}")
    ends = ("run_failed", "early_stopped")
    told = [s.event.text.rstrip(".") for s in run.events() if s.event.kind in ends]
    if run.status == "crashed":
        told.append(lost(run).partition(". ")[0])
    return ", ".join(parts) + "".join(f"; {text}" for text in told) + f" → {run.path}"


def _show(run: Run, console: Console) -> None:
    with _bar(console) as bar:
        task = bar.add_task("starting", total=None)
        while True:
            status, beat = run.status, run.heartbeat
            if beat is not None:
                loss = newest(run, "loss") if status == "running" else None
                text = f"loss {short(loss[1])}" if loss else status
                done = beat.total_steps if status == "finished" else beat.step
                bar.update(task, description=text, completed=done, total=beat.total_steps)
            if status in _ENDED:
                return
            time.sleep(_LOOK_SECONDS)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # into a file it would be empty lines
    )
