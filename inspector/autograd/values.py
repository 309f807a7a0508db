"""What was computed at the nodes of a small graph: forward values and gradients, as plain lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

SMALL = 64  # elements of a tensor that is listed
_KEY = "inspector.value"


class ValueTags(TorchFunctionMode):
    """While entered, writes each small result on the node that made it.

    It stays away from the numbers: what the operations compute is unchanged. Operations inside
    composite ones (the steps of an ``einsum``) are not seen.

    Attributes:
        failure: name of the torch function that raised last and the shapes of its tensors, in
            order; None while none raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: tuple[str, tuple[tuple[int, ...], ...]] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        try:
            result = func(*args, **kwargs)
        except Exception:
            shapes = tuple(_shapes((*args, *kwargs.values())))
            self.failure = (getattr(func, "__name__", ""), shapes)
            raise
        first = result[0] if isinstance(result, tuple) and result else result
        if isinstance(first, torch.Tensor) and first.grad_fn is not None:
            tag(first)
        return result


def tag(tensor: torch.Tensor) -> None:
    """Writes a tensor's value on the node that made it, where it is small."""
    value = plain(tensor)
    if value is not None and tensor.grad_fn is not None:
        _metadata(tensor.grad_fn)[_KEY] = value


def tagged_value(node: Node) -> Any:
    """The value that :class:`ValueTags` wrote on the node; None when there is none."""
    return _metadata(node).get(_KEY)


def plain(tensor: torch.Tensor | None) -> Any:
    """A number or nested lists; None for tensors that are large, complex or without storage."""
    if tensor is None or tensor.is_complex() or tensor.layout is not torch.strided:
        return None
    if tensor.device.type == "meta" or tensor.numel() > SMALL:
        return None
    # A tensor inside vmap or a compiled graph has no numbers to read.
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    return tensor.detach().tolist()


class NodeGradients:
    """The gradients that arrive at each node during one backward pass, where they are small."""

    def __init__(self, nodes: list[Node]) -> None:
        self._values: dict[int, Any] = {}
        self._handles = [
            node.register_prehook(self._watch(position)) for position, node in enumerate(nodes)
        ]

    def collect(self) -> dict[int, Any]:
        """Takes the hooks off and returns the gradient by position; of a node that fired twice
        the last one."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return self._values

    def _watch(self, position: int) -> Any:
        def prehook(gradients: tuple[torch.Tensor | None, ...]) -> None:
            first = next((item for item in gradients if item is not None), None)
            self._values[position] = plain(first)

        return prehook


def _shapes(values: Iterable[Any]) -> Iterable[tuple[int, ...]]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield tuple(value.shape)
        elif isinstance(value, (list, tuple)):
            yield from _shapes(value)


def _metadata(node: Node) -> dict[str, Any]:
    return cast("dict[str, Any]", node.metadata)  # PyTorch's annotation calls it a method
