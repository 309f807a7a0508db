"""A child process that is asked one thing: JSON in, one JSON object a line as answers.

An answer ``refused`` holds class and sentence of an error; all others are up to the two ends. What
else the child prints goes to a log, whose last line is told when it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from inspector import errors
from inspector.errors import InspectorError


@dataclass(frozen=True, slots=True)
class Child:
    """The asking end: iterate for the answers."""

    process: subprocess.Popen[bytes]
    answers: IO[bytes]
    log: IO[bytes]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The answers until the child ends; an error that it refused with is raised."""
        for line in self.answers:
            answer = json.loads(line)
            if "refused" in answer:
                kind, text = answer["refused"]
                raise getattr(errors, kind, InspectorError)(text)
            yield answer

    def last_words(self) -> str:
        """The last line that it printed, once it has ended."""
        self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


@contextlib.contextmanager
def ask(
    module: str, arguments: Sequence[str], question: Any, *, apart: bool = False
) -> Iterator[Child]:
    """A child that has been asked; afterwards it goes on, unless something was raised here.

    Args:
        module: what is run, ``python -m MODULE ARGUMENTS``.
        question: JSON for its standard input.
        apart: Ctrl-C in this terminal is not for the child.
    """
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as log:
        told.write(json.dumps(question).encode())
        told.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=told,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=apart,
        )
        assert process.stdout is not None
        with process.stdout as answers:
            try:
                yield Child(process, answers, log)
            except BaseException:  # Ctrl-C too: what nobody waits for must not begin
                process.terminate()
                process.wait()
                raise


class Answers:
    """The answering end: called with what is answered, as keywords.

    What models print must not mix with the answers, so standard output becomes the log.

    Attributes:
        heard: False once nobody listens any more.
    """

    def __init__(self) -> None:
        self._sent = os.dup(1)
        self.heard = True
        os.dup2(2, 1)

    def __call__(self, **message: Any) -> None:
        try:
            os.write(self._sent, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            self.heard = False

    def refuse(self, error: InspectorError) -> None:
        """Raises the error at the other end."""
        self(refused=[type(error).__name__, str(error)])
