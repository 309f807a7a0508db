"""Which process writes a run, and whether it still lives: pid, start time and host together."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number.

    ``start`` is opaque text, unique per boot and start time; ``host`` includes the boot, so that
    containers and machines that share a disk are told apart.
    """

    pid: int
    start: str
    host: str

    @classmethod
    def current(cls) -> Process:
        return cls(os.getpid(), _start(os.getpid()) or "", _host())

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Process:
        return cls(int(fields["pid"]), str(fields["start"]), str(fields["host"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def alive(self) -> bool | None:
        """True or False; None when it ran on another host, where nobody here can look."""
        if self.host != _host():
            return None
        return _start(self.pid) == self.start


def _host() -> str:
    """Host name, boot and pid namespace: within one of these a pid means the same process."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        try:
            parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
            parts.append(str(Path("/proc/self/ns/pid").readlink()))
        except OSError:
            pass
    return " ".join(parts)


def _start(pid: int) -> str | None:
    """When the process started; None when there is none, or only its zombie."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        # The command name may hold spaces and brackets; the state follows its last bracket.
        fields = text[text.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else fields[19]
    import psutil  # type: ignore[import-untyped, unused-ignore]

    try:
        return f"{psutil.Process(pid).create_time():.3f}"
    except psutil.Error:
        return None
