"""Follows every operation of a step and finds the one that made the first bad value that mattered.

A value is *born* bad where an operation gives NaN or infinity although its inputs are finite. Not
every birth matters: ``-inf`` in an attention mask is meant. So each bad tensor remembers where its
bad values came from, and the search goes backwards from the loss or from the gradients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from inspector.timemachine.checks import count_nonfinite
from inspector.timemachine.places import Place

_MEANT = (
    "masked_fill", "where", "fill", "full", "scalar_tensor", "lift_fresh", "new_full", "triu",
    "tril", "masked_scatter", "constant_pad_nd",
)  # fmt: skip
_BLANK = ("empty", "new_empty", "resize")


@dataclass(eq=False, slots=True)
class Operation:
    """One operation with NaN or infinity in its result.

    Attributes:
        name: as PyTorch calls it: ``log``, ``addmm``.
        node: the autograd function that ran it, in a backward pass; else empty.
        place: where it was called, for a backward pass where the forward call was.
        inputs: what went in, as :func:`described`.
        output: the result.
        causes: the bad operations whose results went in.
        leaf: the name of the bad tensor that no operation made; else empty.
    """

    order: int
    name: str
    node: str = ""
    place: Place = field(default_factory=Place)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    output: Tensor | None = None
    causes: list[Operation] = field(default_factory=list)
    nan: bool = False
    meant: bool = False
    leaf: str = ""

    @property
    def born(self) -> bool:
        """Whether bad values begin here."""
        if self.meant:
            return False
        return bool(self.leaf) or all(cause.meant for cause in self.causes)


class Births(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode around forward and backward; afterwards :meth:`origin` answers.

    Args:
        where: gives place and autograd function of the operation that runs now.
        leaf_name: names a tensor that no operation made.
    """

    def __init__(
        self, where: Callable[[Any], tuple[Place, str]], leaf_name: Callable[[Tensor], str]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._where = where
        self._leaf_name = leaf_name
        self._writers: dict[int, Operation] = {}
        self._alive: list[Tensor] = []  # else another tensor could get the same storage
        self._order = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_") if hasattr(func, "overloadpacket") else ""
        before = None
        if func._schema.is_mutable:
            before = [(tensor, count_nonfinite(tensor)) for tensor in _tensors((args, kwargs))]
            described_before = described(func, args)
        result = func(*args, **kwargs)
        self._order += 1
        if name.startswith(_BLANK):
            return result
        bad = [tensor for tensor in _tensors(result) if count_nonfinite(tensor)]
        if not bad:
            return result
        if before is None:
            before = [(tensor, count_nonfinite(tensor)) for tensor in _tensors((args, kwargs))]
            described_before = described(func, args)
        place, node = self._where(sys._getframe(1))
        operation = Operation(self._order, name, node, place, described_before, bad[0])
        operation.causes = [self._writer(tensor) for tensor, count in before if count]
        operation.nan = any(bool(torch.isnan(tensor).any()) for tensor in bad)
        operation.meant = self._is_meant(operation)
        self._alive += bad
        for tensor in bad:
            self._writers[_storage(tensor)] = operation
        return result

    def _is_meant(self, operation: Operation) -> bool:
        """Infinity that was asked for, and what it becomes before it turns into NaN."""
        if operation.nan:
            return False
        if operation.causes:
            return all(cause.meant for cause in operation.causes)
        return operation.name.startswith(_MEANT)

    def _writer(self, tensor: Tensor) -> Operation:
        key = _storage(tensor)
        if key not in self._writers:
            leaf = self._leaf_name(tensor)
            nan = bool(torch.isnan(tensor).any())
            self._writers[key] = Operation(
                self._order, "", output=tensor, nan=nan, leaf=leaf or "a constant",
                meant=not leaf and not nan,
            )  # fmt: skip
        return self._writers[key]

    def origin(self, sinks: Iterable[Tensor]) -> tuple[Operation | None, list[Operation]]:
        """The earliest birth that reaches the sinks, and the bad operations from there on."""
        todo = [self._writer(tensor) for tensor in sinks if count_nonfinite(tensor)]
        seen: dict[int, Operation] = {}
        while todo:
            operation = todo.pop()
            if id(operation) not in seen:
                seen[id(operation)] = operation
                todo += operation.causes
        ordered = sorted(seen.values(), key=lambda operation: operation.order)
        first = next((operation for operation in ordered if operation.born), None)
        if first is None:
            return (ordered[0] if ordered else None), ordered
        return first, [operation for operation in ordered if operation.order >= first.order]


def described(func: Any, args: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Name, shape, dtype, smallest and largest finite value of the tensors among arguments."""
    rows = []
    names = [argument.name for argument in func._schema.arguments]
    for position, value in enumerate(args):
        name = names[position] if position < len(names) else f"argument {position}"
        name = "input" if name == "self" else name
        rows += [describe(name, tensor) for tensor in _tensors(value)]
    return rows[:6]


def describe(name: str, tensor: Tensor) -> dict[str, Any]:
    """One row of :func:`described`."""
    row: dict[str, Any] = {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "low": None,
        "high": None,
        "nonfinite": count_nonfinite(tensor),
    }
    if tensor.layout is torch.strided and not tensor.is_complex() and not tensor.is_meta:
        values = tensor.detach()
        values = values[torch.isfinite(values)] if values.is_floating_point() else values
        if values.numel() and values.dtype != torch.bool:
            row["low"], row["high"] = float(values.min()), float(values.max())
    return row


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse tensors have none
        return id(tensor)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return []
