"""An export in a process of its own: the app stays quick, and a training in it undisturbed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.exports.formats import Form, find
from inspector.store.layout import safe_name

LIMIT_SECONDS = 900.0
"""After this long a child is ended; the largest models take a few minutes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: a file with notes and facts, or one sentence of refusal."""

    path: Path | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] | None = None
    refusal: str = ""


class Job:
    """One export that is being made; its file lives as long as the job does."""

    def __init__(
        self, run_path: Path, to: str, *, checkpoint: str = "last", form: Form = "long"
    ) -> None:
        wanted = find(to)
        self._folder = tempfile.TemporaryDirectory(prefix="torch-inspector-export-")
        ending = ".zip" if wanted.folder else ""
        out = Path(self._folder.name) / safe_name(run_path.name + wanted.suffix + ending)
        self._told = (Path(self._folder.name) / "told").open("w+")
        self._log = (Path(self._folder.name) / "log").open("w+")
        self._begun = time.monotonic()
        self._outcome: Outcome | None = None
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "inspector.cli", "export", str(run_path.resolve()),
                "--to", to, "--out", str(out), "--checkpoint", checkpoint, "--form", form, "--json",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._told,
            stderr=self._log,
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    def outcome(self) -> Outcome | None:
        """None while it is being made."""
        if self._outcome is None:
            code = self._process.poll()
            if code is None and self.seconds > LIMIT_SECONDS:
                self.cancel()
                return Outcome(refusal=f"Gave up after {LIMIT_SECONDS / 60:.0f} minutes.")
            if code is not None:
                self._outcome = self._read(code)
        return self._outcome

    def cancel(self) -> None:
        """Ends the child; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._outcome is None:
            self._outcome = Outcome(refusal="Cancelled.")

    def _read(self, code: int) -> Outcome:
        for file in (self._told, self._log):
            file.seek(0)
        lines, complaints = self._told.read().splitlines(), self._log.read().splitlines()
        if code == 0 and lines:
            told = json.loads(lines[-1])
            return Outcome(Path(told["path"]), tuple(told["notes"]), told["facts"])
        last = next((line for line in reversed(complaints) if line.strip()), "no message")
        if code == 2:
            return Outcome(refusal=last.removeprefix("torch-inspector: "))
        return Outcome(refusal=f"The export ended with code {code}: {last}")
