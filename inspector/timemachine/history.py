"""What is kept of the past: two copies of the state, and the batches since the older one."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from inspector.timemachine.calls import Call
from inspector.timemachine.state import StateCopy, bytes_needed

_SHARE = 0.003  # of the training time may go into copies
_LEAST, _MOST = 10, 1000  # steps between two copies
_STEPS = 64
_BATCH_BYTES = 256 << 20
_STATE_BYTES = 4 << 30
_STATE_SHARE = 0.25  # of the memory that is free when the first copy is made


class History:
    """Keeps within a share of the time and of the free memory by itself.

    Attributes:
        every: steps between two copies, as the budget allows.
        due: the step before which the next copy is to be made.
        slots: the copies, at most two; none where memory does not allow one.
        calls: step and calls of the last steps, newest last.
        batch_bytes: what the calls may take.
        shortage: why there are fewer than two copies; empty when there are two.
    """

    def __init__(self, *, batch_bytes: int = _BATCH_BYTES, state_bytes: int = _STATE_BYTES) -> None:
        self.every = _LEAST
        self.slots: list[StateCopy] = []
        self.calls: deque[tuple[int, list[Call]]] = deque()
        self.shortage = ""
        self._bytes = 0
        self.batch_bytes = batch_bytes
        self._state_bytes = state_bytes
        self._room: int | None = None
        self.due = 0
        self._last: tuple[float, int] | None = None

    def add(self, step: int, calls: list[Call]) -> None:
        """Keeps what the model was called with in a finished step."""
        for call in calls:
            if call.gradient is not None:
                call.gradient = None
            self._bytes += call.nbytes
        kept = self.calls
        kept.append((step, calls))
        while len(kept) > _STEPS or (self._bytes > self.batch_bytes and kept):
            for call in kept.popleft()[1]:
                self._bytes -= call.nbytes

    def copy(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        step: int,
        beside: Callable[[], Any] | None = None,
    ) -> None:
        """Copies the state before ``step``, which is at or after ``due``.

        Args:
            beside: gives what the loop wants kept with it.
        """
        if self._room is None:
            self._room = self._count(bytes_needed(model, optimizers), model)
        if self._room == 0:
            self.due = step + _MOST
            return
        started = time.perf_counter()
        if len(self.slots) < self._room:
            self.slots.append(StateCopy())
        slot = min(self.slots, key=lambda kept: kept.step)
        slot.take(model, optimizers, step, None if beside is None else beside())
        self._plan(step, started)

    @property
    def held(self) -> list[int]:
        """Steps before which the state was copied with what the loop needs to go on from there."""
        return sorted(slot.step for slot in self.slots if slot.beside is not None)

    def newest_good(self, before: int | None = None) -> StateCopy | None:
        """The latest copy that is wholly finite, made at or before a step."""
        fitting = [s for s in self.slots if s.step >= 0 and (before is None or s.step <= before)]
        ordered = sorted(fitting, key=lambda slot: -slot.step)
        return next((slot for slot in ordered if slot.finite()), None)

    def oldest_good(self) -> StateCopy | None:
        """The earliest copy that is wholly finite."""
        ordered = sorted((s for s in self.slots if s.step >= 0), key=lambda slot: slot.step)
        return next((slot for slot in ordered if slot.finite()), None)

    def between(self, first: int, last: int) -> list[tuple[int, list[Call]]] | None:
        """The calls of these steps, or None when some are not kept any more."""
        found = [(step, calls) for step, calls in self.calls if first <= step <= last]
        whole = len(found) == last - first + 1 and all(calls for _, calls in found)
        return found if whole else None

    def forget(self) -> None:
        """Lets go of all calls."""
        self.calls.clear()
        self._bytes = 0

    def clear(self) -> None:
        self.forget()
        self.slots.clear()
        self._room = None  # another optimizer may need more

    def _plan(self, step: int, started: float) -> None:
        now = time.perf_counter()
        if self._last is not None and step > self._last[1]:
            per_step = (started - self._last[0]) / (step - self._last[1])
            wanted = math.ceil((now - started) / (_SHARE * per_step))
            self.every = max(_LEAST, min(_MOST, wanted))
        self._last = now, step
        self.due = step + self.every

    def _count(self, needed: int, model: nn.Module) -> int:
        allowed = min(self._state_bytes, int(_STATE_SHARE * _free_bytes(model)))
        count = 2 if 2 * needed <= allowed else 1 if needed <= allowed else 0
        if count < 2:
            self.shortage = (
                f"the state takes {needed / 1e6:.0f} MB, and {allowed / 1e6:.0f} MB may be used: "
                + ("one copy is kept" if count else "no copy is kept")
            )
        return count


def _free_bytes(model: nn.Module) -> int:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on every system
        return 8 << 30
