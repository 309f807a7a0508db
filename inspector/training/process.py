"""A run in a child process: the same loop, for CUDA and for whoever wants a crash to stay there.

The child answers over its standard output, one JSON object a line: ``progress`` of a download, then
either ``name`` of the run or ``refused`` with the class and sentence of an error. From then on it
lives by itself, reads its commands from the run directory, and survives the app.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from inspector import errors
from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.training.downloads import Progress


def start(config: RunConfig, runs_dir: Path, name: str, progress: Progress | None = None) -> str:
    """Starts the child and waits until the run exists; its name.

    Raises:
        InspectorError: what the child refused, or that it died.
    """
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as log:
        json.dump(config.to_dict(), told)
        told.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", "inspector.training.child", str(runs_dir), name],
            stdin=told,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal of the app is not for the child
        )
        # Reaps the child, so that it does not look alive after its end.
        threading.Thread(target=child.wait, name="inspector-child", daemon=True).start()
        assert child.stdout is not None
        with child.stdout:
            answer = _answer(child.stdout, progress)
        if answer is None:
            child.wait()
            log.seek(0)
            last = (log.read().strip().splitlines() or ["no message"])[-1]
            raise InspectorError(
                f"The training process ended with code {child.returncode} before the run began: "
                f"{last}."
            )
        return answer


def _answer(lines: IO[str], progress: Progress | None) -> str | None:
    for line in lines:
        message = json.loads(line)
        if "progress" in message and progress is not None:
            progress(*message["progress"])
        if "refused" in message:
            kind, text = message["refused"]
            known = getattr(errors, kind, InspectorError)
            raise known(text)
        if "name" in message:
            return str(message["name"])
    return None
