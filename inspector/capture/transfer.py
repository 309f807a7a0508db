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


def to_host(tensor: Tensor) -> Tensor:
    """A copy on the host of a tensor on CUDA; see :class:`Arrival`."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


class Arrival:
    """When what was copied to the host from some CUDA devices so far is there."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._events: list[torch.cuda.Event] = []
        for device in devices:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._events.append(event)

    def here(self) -> bool:
        return all(event.query() for event in self._events)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        for event in self._events:
            event.synchronize()


def _number(value: Tensor) -> Tensor:
    """The value alone; each call saved is one of a thousand in a step."""
    if value.requires_grad:
        value = value.detach()
    return value.reshape(()) if value.dim() else value


def _wide(device: torch.device) -> torch.dtype:
    """What the numbers of a device travel in: not all know float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Shipment:
    """The device scalars inside ``cells``, on their way to the host in one copy per device.

    ``cells`` are lists that hold floats and 0-dimensional tensors; :meth:`land` replaces every
    tensor by its float in place.
    """

    def __init__(self, cells: Iterable[list[Scalar]]) -> None:
        waiting: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        targets: dict[tuple[torch.device, torch.dtype], list[tuple[list[Scalar], int]]] = {}
        for cell in cells:
            for position, value in enumerate(cell):
                if isinstance(value, Tensor):
                    kind = value.device, value.dtype
                    targets.setdefault(kind, []).append((cell, position))
                    waiting.setdefault(kind, []).append(_number(value))
        parts: dict[torch.device, list[Tensor]] = {}
        self._targets: dict[torch.device, list[tuple[list[Scalar], int]]] = {}
        for (device, dtype), tensors in waiting.items():
            parts.setdefault(device, []).append(torch.stack(tensors).to(_wide(device)))
            self._targets.setdefault(device, []).extend(targets[device, dtype])
        self._hosts: dict[torch.device, Tensor] = {}
        for device, pieces in parts.items():
            whole = torch.cat(pieces)
            self._hosts[device] = to_host(whole) if device.type == "cuda" else whole.cpu()
        self._arrival = Arrival(device for device in parts if device.type == "cuda")

    def ready(self) -> bool:
        """Whether :meth:`land` would not have to wait."""
        return self._arrival.here()

    def land(self) -> None:
        """Writes the floats into the cells; waits for the device if it must."""
        self._arrival.wait()
        for device, host in self._hosts.items():
            for (cell, position), value in zip(self._targets[device], host.tolist(), strict=True):
                cell[position] = value
        self._targets.clear()
        self._hosts.clear()
