"""The process in which snippets run: imports torch once, then answers jobs from its input.

Messages go out as lines of JSON: ``ready``, then for each job ``run`` (the process that runs it),
any number of ``printed``, one ``report``, and ``ended`` (its exit status).
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import select
import signal
import sys
from typing import Any, TextIO

FORKS = sys.platform == "linux"
IDLE_SECONDS = 0.5


class Channel:
    """The way back to the app; a snippet's own printing cannot get in between."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, **message: Any) -> None:
        # A snippet that was killed may have left half a line behind: begin a new one.
        # Lone surrogates, which Python's text may hold, are no UTF-8.
        data = f"\n{json.dumps(message, ensure_ascii=False)}\n".encode("utf-8", "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]


class Printed(io.TextIOBase):
    """What a snippet prints, sent as it comes and cut at a limit."""

    def __init__(self, channel: Channel, limit: int) -> None:
        self._channel = channel
        self._left = limit

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left > 0:
            self._channel.send(printed=text[: self._left])
            self._left -= len(text)
            if self._left < 0:
                self._channel.send(cut=True)
        return len(text)


def main() -> None:
    """Serves until the input closes."""
    jobs, channel = _private_streams()
    try:
        import torch

        from inspector.lab import record
    except Exception as error:
        channel.send(failed=repr(error))
        return
    torch.set_num_threads(1)
    gc.freeze()  # a fork shares what is not touched
    channel.send(ready=True)
    if not FORKS:
        if line := jobs.readline():
            channel.send(run=os.getpid())
            _run(json.loads(line), channel, record)
        return
    complete = False
    while True:
        if not complete and not select.select([jobs.fileno()], [], [], IDLE_SECONDS)[0]:
            import torch._dynamo  # optimizers want it, and it is slow to import

            complete = True
            gc.freeze()
        if not (line := jobs.readline()):
            return
        status = _forked(json.loads(line), jobs, channel, record)
        channel.send(ended=status, reusable=True)


def _private_streams() -> tuple[TextIO, Channel]:
    """Moves input and output away, so that a snippet that reads or prints finds nothing there."""
    jobs, out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    return os.fdopen(jobs, encoding="utf-8", buffering=1), Channel(out)


def _forked(job: dict[str, Any], jobs: TextIO, channel: Channel, record: Any) -> int:
    """Runs a job in a fork; its exit status, negative for a signal."""
    lifeline, held = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(lifeline)
            os.setsid()
            channel.send(run=os.getpid())
            _run(job, channel, record)
            status = 0
        finally:
            os._exit(status)
    os.close(held)
    # The fork holds the other end until it is gone; input that closes means the app is gone.
    ready, _, _ = select.select([lifeline, jobs.fileno()], [], [])
    if lifeline not in ready:
        with contextlib.suppress(OSError):
            os.killpg(process, signal.SIGKILL)
    os.close(lifeline)
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(OSError):  # what the snippet started goes with it
        os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _run(job: dict[str, Any], channel: Channel, record: Any) -> None:
    os.chdir(job["folder"])
    lift = _limit(job)
    sys.stdout = sys.stderr = Printed(channel, job["printed"])
    report = record.run(job["snippet"], lift)
    try:
        channel.send(report=report.to_dict())
    except (ValueError, TypeError, RecursionError) as error:
        sentence = f"The snippet ran, but its result cannot be shown ({type(error).__name__})."
        channel.send(report={"stopped": sentence, "seconds": report.seconds})


def _limit(job: dict[str, Any]) -> Any:
    """Sets the limits that the platform has; returns what takes the memory limit off again."""
    try:
        import resource
    except ImportError:
        return lambda: None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = int(job["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    used = _address_space()
    if not used:
        return lambda: None
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + job["memory"], hard))
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _address_space() -> int:
    """Bytes of address space in use now, most of it torch's libraries; 0 where unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
