"""Questions to a device whose answers may come later, so that the host need not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inspector.capture.transfer import Arrival, to_host

Known = Any
"""A value on the host: a tensor on the CPU, or a number."""


class Answers:
    """Hands values over when they are on the host, in the order in which they were asked for.

    On the CPU they are there at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., None], _Parcel]] = deque()

    def ask(self, then: Callable[..., None], *values: Tensor | float) -> None:
        """Calls ``then`` with the values on the host, never before what was asked earlier.

        Without values, ``then`` is what must not happen before earlier answers are known.
        """
        away = any(isinstance(value, Tensor) and not value.is_cpu for value in values)
        if not away and not self._waiting:
            then(*values)
        else:
            self._waiting.append((then, _Parcel(values)))

    def arrive(self, *, wait: bool = False) -> None:
        """Hands over what is here by now; with ``wait`` everything that was asked for."""
        while self._waiting and (wait or self._waiting[0][1].here()):
            then, parcel = self._waiting.popleft()
            then(*parcel.open())


class _Parcel:
    """Values on their way to the host, those of one kind and CUDA device in one piece."""

    def __init__(self, values: tuple[Tensor | float, ...]) -> None:
        self._values: list[Any] = list(values)
        self._pieces: list[tuple[Tensor, list[int]]] = []
        kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for position, value in enumerate(values):
            if not isinstance(value, Tensor):
                continue
            if value.is_cuda:
                kinds.setdefault((value.device, value.dtype), []).append(position)
            else:
                self._values[position] = value.detach().clone() if value.is_cpu else value.cpu()
        for positions in kinds.values():
            parts = [self._values[position].detach() for position in positions]
            flat = torch.cat([part.reshape(-1) for part in parts])
            self._pieces.append((to_host(flat), positions))
            for position, part in zip(positions, parts, strict=True):
                self._values[position] = part.shape
        self._arrival = Arrival({device for device, _ in kinds})

    def here(self) -> bool:
        return self._arrival.here()

    def open(self) -> list[Known]:
        self._arrival.wait()
        for host, positions in self._pieces:
            shapes = [self._values[position] for position in positions]
            parts = torch.split(host, [shape.numel() for shape in shapes])
            for position, shape, part in zip(positions, shapes, parts, strict=True):
                self._values[position] = part.reshape(shape)
        return self._values
