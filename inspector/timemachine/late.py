"""Answers that a device gives a step later: asked for without waiting."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor


class LateFlags:
    """Which steps were bad, as the device gets round to saying so.

    Attributes:
        healthy: the last answer was that all is finite.
    """

    def __init__(self) -> None:
        self.healthy = True
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, bad: Tensor | bool, loss: Tensor | float | None) -> None:
        """Asks about one step; ``bad`` is above 0 when a gradient is non-finite."""
        flag = bad.detach() if isinstance(bad, Tensor) else torch.tensor(float(bad))
        if isinstance(loss, Tensor):
            flag = flag.to(loss.device) + (~torch.isfinite(loss.detach().reshape(()))).float()
        elif loss is not None and not math.isfinite(loss):
            flag = flag + 1
        event = None
        if flag.is_cuda:
            host = torch.empty((), pin_memory=True)
            host.copy_(flag, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(flag.device))
            flag = host
        self._waiting.append((step, flag, event))

    def first_bad(self) -> int | None:
        """The first bad step among the answers that have arrived."""
        while self._waiting:
            step, flag, event = self._waiting[0]
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                return None
            self._waiting.popleft()
            self.healthy = float(flag) == 0
            if not self.healthy:
                return step
        return None

    def clear(self) -> None:
        self._waiting.clear()
