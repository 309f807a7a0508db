"""Commands on their way from the control file to the step boundary at which they are obeyed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspector.commands import Command
from inspector.events import CommandRefused, Event
from inspector.store.agreement import Agreement
from inspector.store.control import ControlReader

_POLL_SECONDS = 0.05
_AGREE_SECONDS = 0.005


class Inbox:
    """A thread of its own looks for commands and raises the alarm of the steps that run.

    Attributes:
        commands: to be obeyed at the next boundary, oldest first.
        agreement: where several ranks train, the way to a boundary that is the same for all.
        arrived: set when a command has come.

    Args:
        pulse: knows the step that runs; with its ``alarm`` every boundary is attended.
        emit: is told of what is no command.
        abandoned: whether nobody will train any more; asked again and again.
    """

    def __init__(
        self,
        run_path: Path,
        agreement: Agreement | None,
        *,
        pulse: Any,
        emit: Callable[[Event], None],
        abandoned: Callable[[], bool],
    ) -> None:
        self.commands: deque[Command] = deque()
        self.agreement = agreement
        self.arrived = threading.Event()
        self._reader = ControlReader(run_path)
        self._pulse = pulse
        self._emit = emit
        self._abandoned = abandoned
        self._done = threading.Event()

    def open(self) -> None:
        """Commands are heard from now on."""
        threading.Thread(target=self._listen, name="inspector-commands", daemon=True).start()

    def close(self) -> None:
        """Nothing is heard any more, and no other rank waits for this one."""
        self._done.set()
        if self.agreement is not None:
            self.agreement.end()

    @property
    def waiting(self) -> bool:
        """Whether there is a command to be obeyed, at this boundary or at a later one."""
        return bool(self.commands) or (self.agreement is not None and self.agreement.waiting)

    def wait(self, seconds: float) -> None:
        """Until a command comes, at most so long."""
        self.arrived.clear()
        if not self.commands:
            self.arrived.wait(seconds)

    # ------------------------------------------------------------ the listening thread

    def _listen(self) -> None:
        agreement = self.agreement
        while not self._done.wait(
            _AGREE_SECONDS if agreement is not None and agreement.unsettled else _POLL_SECONDS
        ):
            if self._abandoned():
                break
            for command in self._reader.poll():
                if agreement is None:
                    self.commands.append(command)
                else:
                    agreement.hear(command, self._alarmed)
                self._pulse.alarm = 1
                self.arrived.set()
            if agreement is not None and agreement.unsettled:
                agreement.settle()
                self.arrived.set()
            for refused in self._reader.refused:
                self._emit(
                    CommandRefused(command_id=refused.id, name="command", reason=refused.reason)
                )
            self._reader.refused.clear()
        self._reader.close()
        if agreement is not None:
            agreement.close()

    def _alarmed(self) -> int:
        """The step that runs, after which every boundary is attended."""
        self._pulse.alarm = 1
        return self._pulse.step  # type: ignore[no-any-return]
