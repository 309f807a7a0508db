"""Bringing a step's numbers to the host: at once on the CPU, one copy without waiting elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Scalar = float | Tensor
"""A number, or a 0-dimensional tensor on a device whose value is not known to the host yet."""

ABSENT = -1.0
"""Stands for "not measured" in lists of norms, counts and ratios, which are never negative."""


def scalar(tensor: Tensor) -> Scalar:
    """The value where reading it costs nothing, else the tensor itself."""
    return tensor.item() if tensor.is_cpu else tensor


class Shipment:
    """The device scalars inside ``cells``, on their way to the host in one copy per device.

    ``cells`` are lists that hold floats and 0-dimensional tensors; :meth:`land` replaces every
    tensor by its float in place.
    """

    def __init__(self, cells: Iterable[list[Scalar]]) -> None:
        self._targets: dict[torch.device, list[tuple[list[Scalar], int]]] = {}
        waiting: dict[torch.device, list[Tensor]] = {}
        for cell in cells:
            for position, value in enumerate(cell):
                if isinstance(value, Tensor):
                    device = value.device
                    self._targets.setdefault(device, []).append((cell, position))
                    waiting.setdefault(device, []).append(value.detach())
        self._hosts: dict[torch.device, Tensor] = {}
        self._arrivals: list[torch.cuda.Event] = []
        for device, tensors in waiting.items():
            stacked = torch.stack([tensor.reshape(()).double() for tensor in tensors])
            if device.type == "cuda":
                host = torch.empty(len(tensors), dtype=torch.float64, pin_memory=True)
                host.copy_(stacked, non_blocking=True)
                arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
                arrival.record(torch.cuda.current_stream(device))
                self._arrivals.append(arrival)
            else:
                host = stacked.cpu()
            self._hosts[device] = host

    def ready(self) -> bool:
        """Whether :meth:`land` would not have to wait."""
        return all(arrival.query() for arrival in self._arrivals)  # type: ignore[no-untyped-call]

    def land(self) -> None:
        """Writes the floats into the cells; waits for the device if it must."""
        for arrival in self._arrivals:
            arrival.synchronize()
        for device, host in self._hosts.items():
            for (cell, position), value in zip(self._targets[device], host.tolist(), strict=True):
                cell[position] = value
        self._targets.clear()
        self._hosts.clear()
