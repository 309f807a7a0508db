"""Which ATen operation, with which inputs, made a node: what is needed to evaluate it again."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from inspector.autograd.owners import _Hook
from inspector.autograd.portrait import portrait

MOST_ELEMENTS = 1 << 18  # of all inputs of an operation that is kept to be evaluated again
MOST_TOGETHER = 1 << 24  # of all that is kept
_BETWEEN = 6  # operations that may run between one and the creation of its node


@dataclass(slots=True)
class Call:
    """One operation below autograd.

    Attributes:
        args, kwargs: copies of what it was called with; ``args`` is None when too large to keep.
        output: portrait of its (first) result.
    """

    func: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    output: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Such as ``mul``."""
        return str(self.func._schema.name).rpartition("::")[2]

    @property
    def random(self) -> bool:
        return torch.Tag.nondeterministic_seeded in self.func.tags


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, remembers the operation behind each node that is created in this thread.

    Before torch 2.14 there is no hook for the creation of a node, so nothing is remembered.
    A failure of ours never reaches the forward pass. Call ``forget()`` when done: copies of
    inputs are kept until then.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recent: deque[Call] = deque(maxlen=_BETWEEN)
        self._calls: dict[Node, Call] = {}
        self._creation: Any = None
        self._room = MOST_TOGETHER

    def of(self, node: Node) -> Call | None:
        return self._calls.get(node)

    def forget(self) -> None:
        self._calls.clear()
        self._recent.clear()
        self._room = MOST_TOGETHER

    def __enter__(self) -> Calls:
        hook = getattr(torch.autograd.graph, "node_creation_hook", None)
        if hook is not None:
            self._creation = hook(self._created)
            self._creation.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self._creation is not None:
            self._creation.__exit__(None, None, None)
            self._creation = None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kept = None
        seen = any(tensor.requires_grad for tensor in _tensors((args, kwargs)))
        if seen:  # copied before: the operation, or a later one, may work in place
            with contextlib.suppress(Exception):  # an error here would abort the forward pass
                kept = self._copies(args, kwargs)
        result = func(*args, **kwargs)
        if seen:
            with contextlib.suppress(Exception):
                first = next(iter(_tensors(result)))
                inputs, named = kept or (None, {})
                self._recent.append(Call(func, inputs, named, portrait(first)))
        return result

    def _copies(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        size = sum(tensor.numel() for tensor in _tensors((args, kwargs)))
        if size > min(MOST_ELEMENTS, self._room):
            return None
        self._room -= size
        copied: tuple[tuple[Any, ...], dict[str, Any]] = tree_map_only(
            Tensor, lambda tensor: tensor.detach().clone(), (args, kwargs)
        )
        return copied

    def _created(self, node: Node) -> None:
        name = _bare(node.name())
        for call in reversed(self._recent):
            if _bare(call.name) == name:
                self._calls[node] = call
                self._recent.clear()
                return


class ForwardCalls:
    """Enters :class:`Calls` when the model's forward pass begins with gradients enabled.

    It stays entered for the loss after it, until ``leave()``; compiled models are left alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls = Calls()
        self._entered = False
        compiled = any(
            hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None)
            for module in model.modules()
        )
        self._handle = None if compiled else model.register_forward_pre_hook(_Hook(self._begin))

    def leave(self) -> None:
        """Safe to call twice; in the thread that ran the forward pass."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._entered:
            self._entered = False
            self.calls.__exit__(None, None, None)

    def _begin(self, *_: object) -> None:
        if torch.is_grad_enabled() and not self._entered:
            self._entered = True
            self.calls.__enter__()


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _bare(name: str) -> str:
    """``LogSoftmaxBackward0`` and ``_log_softmax`` alike as ``logsoftmax``."""
    bare = re.sub(r"Backward\d*$", "", name.rpartition("::")[2]).replace("_", "").lower()
    return bare.removesuffix("forward")
