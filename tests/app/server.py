"""The app as a person starts it: README's first command, in a folder of its own."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from inspector.commands import Command
from inspector.store.control import ControlWriter
from inspector.store.layout import CONTROL_FILE
from inspector.store.reader import list_runs
from tests.page_server import free_port


class App:
    """The server of README's first command, on a port that no other test process tries.

    Attributes:
        runs_dir: folder of its runs; need not exist yet.
        link: the address that is printed, with the token.
        base: the address without it.
    """

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.log = runs_dir.with_suffix(".log")
        command = [sys.executable, "-m", "inspector.cli", "ui", str(runs_dir), "--no-browser"]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, f"--port={free_port()}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.link = self._printed_link()
        self.base = self.link.partition("?")[0].rstrip("/")

    def _printed_link(self) -> str:
        for _ in range(360):
            found = re.findall(r"http://\S+\?token=\S+", self.log.read_text())
            if found:
                return str(found[-1])
            try:
                self.process.wait(0.25)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError(f"no link was printed:\n{self.log.read_text()}")

    def commands(self) -> int:
        """How many commands the runs have been sent."""
        sent = 0
        for file in self.runs_dir.glob(f"*/{CONTROL_FILE}"):
            with (
                contextlib.suppress(sqlite3.OperationalError),  # being made at this moment
                contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db,
            ):
                sent += int(db.execute("SELECT COUNT(*) FROM command").fetchone()[0])
        return sent

    def set(self, run: str, control: str, value: object) -> None:
        """Sends a run another value of a control, as the steering panel does."""
        with contextlib.closing(ControlWriter(self.runs_dir / run)) as writer:
            writer.send(Command(name="set", control=control, value=value))

    def full_speed(self, run: str) -> None:
        """Takes the presets' slow motion off a run whose end or accident is waited for."""
        self.set(run, "max_steps_per_s", None)

    def still(self) -> None:
        """Stops what trains: one process trains one run at a time, and refuses a second."""
        alive = ("running", "paused")
        for run in [run for run in list_runs(self.runs_dir) if run.status in alive]:
            with contextlib.closing(ControlWriter(self.runs_dir / run.name)) as writer:
                writer.send(Command(name="stop"))
        for _ in range(150):  # what a test has only written heeds no command
            if not any(run.status in alive for run in list_runs(self.runs_dir)):
                return
            time.sleep(0.1)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
