"""Answers that a device gives a step later: asked for without waiting."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from inspector.capture.transfer import Arrival, Scalar, to_host


class LateFlags:
    """Which steps were bad, as the device gets round to saying so."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, Tensor, Arrival]] = deque()

    def add(self, step: int, position: int, bad: Tensor | bool, loss: Scalar | None) -> None:
        """Asks about an optimizer's step; ``bad`` is above 0 when a gradient is non-finite."""
        flag = bad.detach() if isinstance(bad, Tensor) else torch.tensor(float(bad), device="cpu")
        if isinstance(loss, Tensor):
            flag = flag.to(loss.device) + (~torch.isfinite(loss.detach().reshape(()))).float()
        elif loss is not None and not math.isfinite(loss):
            flag = flag + 1
        devices = [flag.device] if flag.is_cuda else []
        if devices:
            flag = to_host(flag)
        self._waiting.append((step, position, flag, Arrival(devices)))

    def arrived(self) -> Iterator[tuple[int, int, bool]]:
        """Step, position of the optimizer, and whether it was bad, of the answers that are here.

        It ends after a bad one, which may be acted on first.
        """
        while self._waiting:
            step, position, flag, arrival = self._waiting[0]
            if not arrival.here():
                return
            self._waiting.popleft()
            bad = float(flag) != 0
            yield step, position, bad
            if bad:
                return

    def clear(self) -> None:
        self._waiting.clear()
