"""The app as a person starts it: README's first command, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


class App:
    """The server of README's first command, in a folder of its own."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.log = runs_dir.with_suffix(".log")
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inspector.cli", "ui", str(runs_dir), "--no-browser"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.link = self._printed_link()
        self.base = self.link.partition("?")[0].rstrip("/")

    def _printed_link(self) -> str:
        for _ in range(240):
            found = re.findall(r"http://\S+\?token=\S+", self.log.read_text())
            if found:
                return str(found[-1])
            try:
                self.process.wait(0.25)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError(f"no link was printed:\n{self.log.read_text()}")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
