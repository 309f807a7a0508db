"""A stand-in for a CUDA device, for tests on machines that have none.

Tensors stay on the CPU, where numbers are real, but say that they are on ``cuda:0``, which is the
default device, as after ``torch.set_default_device("cuda")``. What the host copies without waiting
arrives later, and asking for a value waits for the device: where the capture does that, it raises
:class:`Waited`.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import inspector
from inspector.capture import native

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GARBAGE = 777.0  # what is in memory into which a copy has not been made yet

_WAITS = [
    "item", "tolist", "numpy", "cpu", "nonzero", "equal", "masked_select", "unique", "allclose",
    "bincount", "__bool__", "__float__", "__int__", "__index__", "__array__",
]  # fmt: skip
_FACTORIES = [
    "empty", "zeros", "ones", "full", "tensor", "as_tensor", "arange", "eye", "linspace", "rand",
    "randn", "randint", "randperm", "empty_like", "zeros_like", "ones_like",
]  # fmt: skip


_OURS = str(Path(inspector.__file__).parent)
_BETWEEN = (__file__, str(Path(torch.__file__).parent))


class Waited(AssertionError):
    """The host has asked for a number that the device may not have computed yet."""


class Event:
    """Arrives when the script has gone on for some steps, or when it is waited for."""

    def __init__(self, device: StandIn) -> None:
        self._device = device
        self._due = 0
        self._copies: list[tuple[Tensor, Tensor]] = []

    def record(self, _stream: Any = None) -> None:
        self._due = self._device.now + self._device.delay
        self._copies, self._device.copies = self._device.copies, []

    def query(self) -> bool:
        if self._device.now < self._due:
            return False
        self._arrive()
        return True

    def synchronize(self) -> None:
        if not self.query():
            self._device.wait("synchronize")
            self._arrive()

    def elapsed_time(self, _end: Event) -> float:
        return 1.0

    def _arrive(self) -> None:
        for host, values in self._copies:
            self._device.copy(host, values)
        self._copies = []


class StandIn(TorchFunctionMode):
    """Everything is on ``cuda:0`` but what was made for the host, and what is made of that.

    Attributes:
        now: steps so far; counted by the test.
        delay: how many steps a copy to the host takes.
        patient: waiting is allowed, as it is before the first step and after the last.
        waits: what the capture has waited for though it must not, and where.
        copies: what is on its way to the host.
    """

    def __init__(self, delay: int) -> None:
        super().__init__()
        self.now = 0
        self.delay = delay
        self.patient = True
        self.waits: list[str] = []
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.copy: Callable[..., Tensor] = Tensor.copy_
        self._hosts = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What is computed from numbers of the host is there too."""
        result = func(*args, **(kwargs or {}))
        used = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if used and all(map(self.on_host, used)):
            self.keep(result)
        return result

    def on_host(self, tensor: Tensor) -> bool:
        return tensor in self._hosts

    def place(self, tensor: Tensor) -> torch.device:
        """Where a tensor says that it is."""
        if tensor.is_meta:
            return torch.device("meta")
        return CPU if self.on_host(tensor) else CUDA

    def keep(self, result: Any) -> Any:
        """What is in ``result`` is on the host."""
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._hosts[leaf] = True
        return result

    def wait(self, what: str) -> None:
        """Somebody asks; whether that is the script or the capture, the nearest frame tells."""
        for frame in reversed(traceback.extract_stack()):
            if frame.filename.startswith(_OURS) and not self.patient:
                self.waits.append(f"{what} in {frame.name} at step {self.now}")
                raise Waited(self.waits[-1])
            if not frame.filename.startswith(_BETWEEN):
                return

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """From now on tensors say where they are."""
        patch.setattr(Tensor, "is_cpu", property(lambda t: self.place(t) == CPU))
        patch.setattr(Tensor, "is_cuda", property(lambda t: self.place(t) == CUDA))
        patch.setattr(Tensor, "device", property(self.place))
        for name in _WAITS:
            patch.setattr(Tensor, name, self._waiting(name, getattr(Tensor, name)))
        for name in _FACTORIES:
            patch.setattr(torch, name, self._making(getattr(torch, name)))
        patch.setattr(Tensor, "copy_", self._copying(Tensor.copy_))
        patch.setattr(Tensor, "to", self._moving(Tensor.to))
        patch.setattr(torch.backends.cudnn, "is_acceptable", lambda _tensor: False)
        patch.setattr(torch.cuda, "Event", lambda **_: Event(self))
        patch.setattr(torch.cuda, "current_stream", lambda _device=None: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda _device=None: (1 << 34, 1 << 35))
        patch.setattr(torch.cuda, "memory_allocated", lambda _device=None: 1 << 20)

    def _waiting(self, name: str, inherited: Any) -> Any:
        inherited = _plainly(inherited)

        @wraps(inherited)
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            away = not self.on_host(tensor)
            if away:
                self.wait(name)
            result = inherited(tensor, *args, **kwargs)
            return self.keep(result) if away and name == "cpu" else result

        return method

    def _making(self, inherited: Any) -> Any:
        inherited = _plainly(inherited)

        @wraps(inherited)
        def function(*args: Any, **kwargs: Any) -> Any:
            asked = kwargs.pop("device", None)
            if asked is not None and torch.device(asked).type == "meta":
                return inherited(*args, device=asked, **kwargs)
            pinned = kwargs.pop("pin_memory", False)
            like = next((arg for arg in args if isinstance(arg, Tensor)), None)
            if asked is not None:
                away = torch.device(asked).type == "cuda"
            else:
                away = not pinned if like is None else not self.on_host(like)
            result = inherited(*args, **kwargs)
            return result if away else self.keep(result)

        return function

    def _copying(self, inherited: Any) -> Any:
        inherited = _plainly(inherited)

        @wraps(inherited)
        def copy_(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
            if not self.on_host(target) or self.on_host(source):
                return inherited(target, source)
            if not non_blocking:
                self.wait("copy_")
                return inherited(target, source)
            self.copies.append((target, source.detach().clone()))
            return target.fill_(GARBAGE)

        self.copy = inherited
        return copy_

    def _moving(self, inherited: Any) -> Any:
        inherited = _plainly(inherited)

        @wraps(inherited)
        def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            places = [part for part in (*args, *kwargs.values()) if _is_place(part)]
            if not places:
                return inherited(tensor, *args, **kwargs)
            others = [part for part in args if not _is_place(part)]
            named = {name: part for name, part in kwargs.items() if not _is_place(part)}
            first = places[0]
            host = self.on_host(first) if isinstance(first, Tensor) else _is_cpu(first)
            if isinstance(first, Tensor):
                named["dtype"] = first.dtype
            if host and not self.on_host(tensor):
                self.wait("to")
            result = inherited(tensor, *others, **named) if others or named else tensor.detach()
            return self.keep(result) if host else result

        return to


def _plainly(function: Any) -> Any:
    """The function as it is, out of the mode's sight: that would come back to what replaces it."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return call


def _is_place(part: Any) -> bool:
    return isinstance(part, (str, torch.device, Tensor))


def _is_cpu(place: Any) -> bool:
    return torch.device(place).type == "cpu"


class Cuda:
    """CUDA itself, as the default device; what the capture waits for is heard from PyTorch.

    It has the attributes of :class:`StandIn` that tests use.
    """

    def __init__(self) -> None:
        self.now = 0
        self.waits: list[str] = []
        self._patient = True

    @property
    def patient(self) -> bool:
        return self._patient

    @patient.setter
    def patient(self, patient: bool) -> None:
        self._patient = patient
        torch.cuda.set_sync_debug_mode("default" if patient else "warn")

    def hear(self, message: Any, _category: Any, filename: str, lineno: int, *_rest: Any) -> None:
        """Stands in for ``warnings.showwarning``."""
        if filename.startswith(_OURS) and "synchroniz" in str(message):
            self.waits.append(f"{filename}:{lineno}")


@contextlib.contextmanager
def cuda(patch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """Everything inside is on CUDA."""
    device = Cuda()
    with warnings.catch_warnings(), patch.context() as inside:
        warnings.simplefilter("always")
        inside.setattr(warnings, "showwarning", device.hear)
        torch.set_default_device("cuda")
        try:
            yield device
        finally:
            device.patient = True
            torch.set_default_device(None)


@contextlib.contextmanager
def stand_in(patch: pytest.MonkeyPatch, delay: int = 2) -> Iterator[StandIn]:
    """Everything inside is on the stand-in, and the extension cannot read it."""
    extension = native.load()
    if extension is not None:
        native.set_up(extension, None)
    try:
        device = StandIn(delay)
        with patch.context() as inside:
            device.install(inside)
            with device:
                yield device
    finally:
        if extension is not None:
            native.set_up(extension, getattr(Tensor, "__dlpack_c_exchange_api__", None))
