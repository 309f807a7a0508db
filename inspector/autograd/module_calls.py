"""Order, shapes and duration of every module call of a forward pass."""

from __future__ import annotations

import contextlib
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from inspector.autograd.times import Stopwatch

MOST_CALLS = 20_000
MOST_SHAPES = 4  # tensors of an input or output whose shapes are kept


@dataclass(slots=True)
class _Call:
    module: str
    call: int
    inputs: list[list[int]]
    after: list[int]
    inside: int | None
    start: Any = None
    end: Any = None
    outputs: list[list[int]] = field(default_factory=list)


class ModuleCalls:
    """Records the calls of the given modules, from ``install()`` to ``remove()``.

    The marks lie inside of every other hook that was registered before, so that measuring hooks
    of a module are not part of its own time (those of its children are).
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._open: list[int] = []
        self._numbers: dict[str, int] = {}
        self._makers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._handles: list[RemovableHandle] = []
        self._thread = 0
        self._stopwatch = Stopwatch(torch.device("cpu"))
        self.failure = ""

    @property
    def clock(self) -> str:
        """``host`` or ``cuda``."""
        return self._stopwatch.clock

    def install(self, modules: list[tuple[str, nn.Module]], device: torch.device) -> None:
        self._thread = threading.get_ident()
        self._stopwatch = Stopwatch(device)
        for path, module in modules:
            # Some exotic modules (scripted ones) refuse hooks.
            with contextlib.suppress(Exception):
                enter = _Entered(self._entered, path)
                self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                leave = _Left(self._left, path)
                self._handles.append(module.register_forward_hook(leave, prepend=True))

    def remove(self) -> None:
        """Takes the hooks off; safe to call twice. What was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._makers.clear()
        self._open.clear()

    def records(self) -> list[dict[str, Any]]:
        """The calls in the order in which they began.

        Returns:
            ``module, call`` (counted from ``install()``), ``inputs, outputs`` (shapes), ``us``
            (microseconds, None when it did not end), ``after`` (positions of the calls whose
            very outputs it took), ``inside`` (position of the call around it, or None).
        """
        return [
            {
                "module": call.module, "call": call.call, "inputs": call.inputs,
                "outputs": call.outputs, "after": call.after, "inside": call.inside,
                "us": None if call.end is None
                else round(self._stopwatch.between(call.start, call.end), 3),
            }
            for call in self._calls
        ]  # fmt: skip

    def _entered(self, path: str, args: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        number = self._numbers.get(path, 0)
        self._numbers[path] = number + 1
        # A pass without gradients, such as a validation, makes no graph: nothing of it is kept.
        if len(self._calls) >= MOST_CALLS or not (self._open or torch.is_grad_enabled()):
            return
        taken = _tensors(args)
        makers = {self._maker(tensor) for tensor in taken} - {None}
        inside = self._open[-1] if self._open else None
        after = sorted(maker for maker in makers if maker is not None)
        self._calls.append(_Call(path, number, _shapes(taken), after, inside))
        self._open.append(len(self._calls) - 1)
        self._calls[-1].start = self._stopwatch.mark()

    def _left(self, path: str, output: Any) -> None:
        end = self._stopwatch.mark()
        if threading.get_ident() != self._thread:
            return
        if not any(self._calls[position].module == path for position in self._open):
            return
        # A module that raised on its way in may have left entries above ours.
        while self._calls[position := self._open.pop()].module != path:
            pass
        self._calls[position].end = end
        made = _tensors(output)
        self._calls[position].outputs = _shapes(made)
        container = any(call.inside == position for call in self._calls[position + 1 :])
        for tensor in made:
            # A container hands on what its last child made: the child is the maker. What works
            # in place hands on its input, and is the maker all the same.
            if not container or self._maker(tensor) is None:
                self._makers[id(tensor)] = (weakref.ref(tensor), position)

    def _maker(self, tensor: Tensor) -> int | None:
        known = self._makers.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None


class _Entered:
    """A forward pre-hook that is inert in copies and never reaches the forward pass."""

    def __init__(self, action: Any = None, path: str = "") -> None:
        self._action = action
        self._path = path

    def __call__(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if self._action is not None and not torch.compiler.is_compiling():
            with contextlib.suppress(Exception):
                self._action(self._path, (args, kwargs))

    def __reduce__(self) -> tuple[type[_Entered], tuple[()]]:
        return _Entered, ()


class _Left(_Entered):
    """The same as a forward hook."""

    def __call__(self, _: nn.Module, __: Any, output: Any) -> None:
        if self._action is not None and not torch.compiler.is_compiling():
            with contextlib.suppress(Exception):
                self._action(self._path, output)

    def __reduce__(self) -> tuple[type[_Entered], tuple[()]]:
        return _Left, ()


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _shapes(tensors: list[Tensor]) -> list[list[int]]:
    return [[int(size) for size in tensor.shape] for tensor in tensors[:MOST_SHAPES]]
