"""Runs snippets in a child process, so that no loop, crash or hunger of theirs reaches the app.

It protects from accidents, not from attackers: a snippet may read files and use the network like
any program of the same user.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspector.errors import InspectorError
from inspector.lab.report import Report

SECONDS = 10.0
MEMORY = 1024**3  # bytes a snippet may use beyond what Python and torch use themselves
START_SECONDS = 120.0  # importing torch on a busy or cold machine
GRACE_SECONDS = 5.0
_FORK_SECONDS = 2.0
_LOOK_SECONDS = 0.1  # how soon a wish to stop is seen
LINE_LIMIT = 32 * 1024**2  # of one message of the child, in bytes

_BOOT = "import sys; sys.path.append(sys.argv.pop()); from inspector.lab.child import main; main()"
_ROOT = Path(__file__).resolve().parents[2]
# A lecture's screen must not show what else is in the environment.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT",
                "USERPROFILE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    Attributes:
        seconds: wall time; also the processor time where the platform can limit it.
        memory: bytes beyond the interpreter with torch loaded; enforced on Linux.
        printed: characters of output that are kept.
    """

    seconds: float = SECONDS
    memory: int = MEMORY
    printed: int = 20_000


class Sandbox:
    """A warm child process that answers one snippet after the other; safe for several threads.

    On Linux the warm process forks for each snippet, elsewhere a new one is kept ready. It ends
    with ``close()``, when this object goes, and when the app's process does.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        atexit.register(self.close)

    def warm(self) -> None:
        """Starts the child, unless it runs; returns at once, also while a snippet runs."""
        if self._lock.acquire(blocking=False):
            try:
                self._warm()
            finally:
                self._lock.release()

    def run(
        self, snippet: str, *, limits: Limits | None = None, stop: threading.Event | None = None
    ) -> Report:
        """Runs a snippet and says what became of it; never raises on the snippet's account.

        Runs of several threads wait for each other.

        Args:
            limits: for this run only.
            stop: set by another thread to end it early, also while it waits for its turn.

        Raises:
            InspectorError: the child cannot be started at all.
        """
        stop = stop or threading.Event()
        while not self._lock.acquire(timeout=_LOOK_SECONDS):
            if stop.is_set():
                return Report(stopped="You stopped the snippet before its turn came.")
        try:
            with tempfile.TemporaryDirectory(
                prefix="torch-inspector-lab-", ignore_cleanup_errors=True
            ) as folder:
                return self._run(snippet, folder, limits or self.limits, stop)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Ends the child; safe to call twice, and the next run starts another."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child = None

    def _warm(self) -> _Child:
        if self._child is None or self._child.ended:
            self._child = _Child()
        return self._child

    def _run(self, snippet: str, folder: str, limits: Limits, stop: threading.Event) -> Report:
        child = self._warm()
        try:
            child.await_ready()
            return self._answer(child, snippet, folder, limits, stop)
        finally:
            if not child.reusable:
                child.kill()
                self._child = None
                self._warm()

    def _answer(
        self, child: _Child, snippet: str, folder: str, limits: Limits, stop: threading.Event
    ) -> Report:
        child.send({
            "snippet": snippet, "folder": folder, "seconds": limits.seconds,
            "memory": limits.memory, "printed": limits.printed,
        })  # fmt: skip
        start = time.monotonic()
        deadline = start + limits.seconds
        late = by_hand = False
        printed: list[str] = []
        notes: tuple[str, ...] = ()
        report: Report | None = None
        while True:
            look = deadline if late else min(deadline, time.monotonic() + _LOOK_SECONDS)
            message = child.message(look)
            if message is None:
                if late:
                    child.reusable = False
                    break
                # Before it is known which process runs it, the warm one would have to go too.
                known = child.running or time.monotonic() > start + _FORK_SECONDS
                by_hand = stop.is_set() and known
                if not by_hand and time.monotonic() < deadline:
                    continue
                late = True
                child.kill_run()
                deadline = time.monotonic() + GRACE_SECONDS
            elif "printed" in message:
                printed.append(message["printed"])
            elif "cut" in message:
                notes = (f"The output was cut after {limits.printed:,} characters.",)
            elif "report" in message:
                report = Report.from_dict(message["report"])
            elif "ended" in message:
                child.reusable = bool(message.get("reusable"))
                if report is None:
                    report = Report(stopped=_ending(message["ended"], limits))
                break
        if late:
            spent = time.monotonic() - start
            report = Report(
                stopped=f"You stopped the snippet after {spent:.1f} seconds."
                if by_hand
                else f"The snippet was stopped after {limits.seconds:g} seconds: it may loop "
                "for ever, or compute too much for the lab.",
                seconds=spent if by_hand else limits.seconds,
            )
        assert report is not None
        return replace(report, printed="".join(printed), notes=(*report.notes, *notes))


class _Child:
    """One warm process and the messages it sends, a line of JSON each."""

    def __init__(self) -> None:
        self.reusable = True
        self._ready = False
        self._run: int | None = None
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(_ROOT)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise InspectorError(
                f"Expected to start {sys.executable} for the lab, but got {error}."
            ) from error
        threading.Thread(target=self._read, name="inspector-lab", daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def running(self) -> bool:
        """Whether the process that runs the snippet is known."""
        return self._run is not None

    def await_ready(self) -> None:
        """Waits until torch is imported.

        Raises:
            InspectorError: it ended or took too long.
        """
        if self._ready:
            return
        message = self.message(time.monotonic() + START_SECONDS)
        if message is None or "ready" not in message:
            self.reusable = False
            reason = (message or {}).get("failed") or "it ended or took too long"
            raise InspectorError(
                f"Expected the lab's process to import torch, but {reason}; try "
                "'torch-inspector doctor'."
            )
        self._ready = True

    def send(self, job: dict[str, Any]) -> None:
        self._run = None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it just ended: its end is read as a message
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def message(self, deadline: float) -> dict[str, Any] | None:
        """The next message, or None when the deadline passes."""
        while True:
            try:
                message = self._messages.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                return None
            if "run" not in message:
                return message
            self._run = int(message["run"])

    def kill_run(self) -> None:
        """Ends the snippet that runs, with all that it started."""
        if self._run is None or self._run == self._process.pid:
            self.kill()
        else:
            _kill_group(self._run)

    def kill(self) -> None:
        self.reusable = False
        if self._run is not None and self._run != self._process.pid:
            _kill_group(self._run)
        _kill_group(self._process.pid)
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream, contextlib.suppress(OSError, ValueError):
            while line := stream.readline(LINE_LIMIT):
                with contextlib.suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        self._messages.put(message)
        self._messages.put({"ended": self._process.wait(), "reusable": False})


@functools.cache
def shared() -> Sandbox:
    """The sandbox of the app."""
    return Sandbox()


def _kill_group(leader: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)


def _ending(status: int, limits: Limits) -> str:
    """One sentence about a process that ended without a report; negative is minus a signal."""
    if status >= 0:
        return (
            f"The snippet ended the Python process itself (exit code {status}), so nothing of it "
            "can be shown; leave out os._exit."
        )
    number = -status
    if number == getattr(signal, "SIGXCPU", None):
        return f"The snippet was stopped after {limits.seconds:g} seconds of computing."
    if number == getattr(signal, "SIGKILL", None):
        return "The snippet was killed by the system, most likely because memory ran out."
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    word = {"SIGSEGV": "a segmentation fault", "SIGABRT": "an abort"}.get(name, name)
    return f"The snippet crashed the Python process with {word}; the app is not affected."
