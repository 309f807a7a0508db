"""Answers that a device gives a step later: asked for without waiting."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from inspector.capture.transfer import Scalar


class LateFlags:
    """Which steps were bad, as the device gets round to saying so."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, position: int, bad: Tensor | bool, loss: Scalar | None) -> None:
        """Asks about an optimizer's step; ``bad`` is above 0 when a gradient is non-finite."""
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
        self._waiting.append((step, position, flag, event))

    def arrived(self) -> Iterator[tuple[int, int, bool]]:
        """Step, position of the optimizer, and whether it was bad, of the answers that are here.

        It ends after a bad one, which may be acted on first.
        """
        while self._waiting:
            step, position, flag, event = self._waiting[0]
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                return
            self._waiting.popleft()
            bad = float(flag) != 0
            yield step, position, bad
            if bad:
                return

    def clear(self) -> None:
        self._waiting.clear()
