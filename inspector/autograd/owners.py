"""Which module and which source line created a node of the autograd graph."""

from __future__ import annotations

import bisect
import contextlib
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from inspector.autograd.module_calls import ModuleCalls

_KEY = "inspector.owner"
_TORCH = str(Path(torch.__file__).parent) + os.sep
_HERE = str(Path(__file__).parent) + os.sep


class Owner(NamedTuple):
    """Where a node was created.

    Attributes:
        module: path of the innermost module whose forward was running; None outside the model.
        call: how many times that module had been called before, counted from ``install()``.
        file, line: the innermost frame that is not PyTorch's own; "" and 0 when unknown.
    """

    module: str | None
    call: int
    file: str
    line: int


class GraphTags:
    """Tags every node that a forward pass creates, from ``install()`` to ``remove()``.

    Install it in the thread that trains, before the step whose graph is wanted; its cost is a
    few microseconds a node. It never raises into the forward pass, and copies of the model made
    meanwhile carry inert hooks. Also a context manager.

    From torch 2.14 nodes are tagged as they are created, with the source line. Before that the
    engine's sequence numbers at each module's entry and exit tell the module, but no line.

    Args:
        calls: whether to record order, shapes and duration of the module calls too.
    """

    def __init__(self, model: nn.Module, *, calls: bool = False) -> None:
        self._model: nn.Module | None = model
        self.calls = ModuleCalls() if calls else None
        self._handles: list[RemovableHandle] = []
        self._creation: Any = None
        self._thread = 0
        self._stack: list[tuple[str, int]] = []
        self._calls: dict[str, int] = {}
        self._marks: list[int] = []
        self._places: list[tuple[str, int] | None] = []
        self.failure = ""

    def install(self) -> GraphTags:
        """Starts tagging; a second call does nothing."""
        if self._handles or self._creation is not None or self._model is None:
            return self
        self._thread = threading.get_ident()
        modules = visible_modules(self._model)
        for path, module in modules:
            # Some exotic modules (scripted ones) refuse hooks: their nodes go to the parent.
            with contextlib.suppress(Exception):
                enter = module.register_forward_pre_hook(_Hook(self._enter, path), prepend=True)
                self._handles.append(enter)
                leave = module.register_forward_hook(_Hook(self._leave, path), always_call=True)
                self._handles.append(leave)
        if self.calls is not None:
            parameter = next(self._model.parameters(), torch.empty(0))
            self.calls.install(modules, parameter.device)
        hook = getattr(torch.autograd.graph, "node_creation_hook", None)
        if hook is not None:
            self._creation = hook(self._created)
            self._creation.__enter__()
        return self

    def remove(self) -> None:
        """Stops tagging and takes every hook off; safe to call twice. Tags remain readable.

        Call it in the thread that called ``install()``.
        """
        if self._creation is not None:
            self._creation.__exit__(None, None, None)
            self._creation = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self.calls is not None:
            self.calls.remove()
        self._stack.clear()
        self._model = None

    def __enter__(self) -> GraphTags:
        return self.install()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def owner(self, node: Node) -> Owner | None:
        """The owner of a node that has no tag of its own, by sequence number; None if unknown."""
        position = bisect.bisect_right(self._marks, node._sequence_nr()) - 1
        if position < 0:
            return None
        place = self._places[position]
        return Owner(None, 0, "", 0) if place is None else Owner(*place, "", 0)

    def _enter(self, path: str) -> None:
        if threading.get_ident() != self._thread:
            return
        call = self._calls.get(path, 0)
        self._calls[path] = call + 1
        self._stack.append((path, call))
        self._mark()

    def _leave(self, path: str) -> None:
        if threading.get_ident() != self._thread:
            return
        # A module that raised on its way in may have left entries above ours.
        while self._stack and self._stack.pop()[0] != path:
            pass
        self._mark()

    def _mark(self) -> None:
        if self._creation is None:
            self._marks.append(torch._C._autograd._get_sequence_nr())
            self._places.append(self._stack[-1] if self._stack else None)

    @property
    def ran(self) -> bool:
        """Whether a module has been called meanwhile."""
        return bool(self._calls)

    def _created(self, node: Node) -> None:
        try:
            path, call = self._stack[-1] if self._stack else (None, 0)
            file, line = _user_line(sys._getframe(1))
            _metadata(node)[_KEY] = Owner(path, call, file, line)
        except Exception as error:  # an error here would abort the user's forward pass
            self.failure = repr(error)


def tagged_owner(node: Node) -> Owner | None:
    """The owner that :class:`GraphTags` wrote on the node when it was created, or None."""
    owner = _metadata(node).get(_KEY)
    return owner if isinstance(owner, Owner) else None


def visible_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules whose forward runs as Python: not those inside a compiled module."""
    compiled = [
        path
        for path, module in model.named_modules()
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
    ]
    inside = tuple(f"{path}." if path else "" for path in compiled)
    return [
        (path, module)
        for path, module in model.named_modules()
        if path not in compiled and not (inside and path.startswith(inside))
    ]


class _Hook:
    """A forward hook that runs ``action(path)``, returns None and is inert in copies."""

    def __init__(self, action: Any = None, path: str = "") -> None:
        self._action = action
        self._path = path

    def __call__(self, *_: object) -> None:
        if self._action is not None and not torch.compiler.is_compiling():
            self._action(self._path)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


def _metadata(node: Node) -> dict[str, Any]:
    return cast("dict[str, Any]", node.metadata)  # PyTorch's annotation calls it a method


def _user_line(frame: FrameType | None) -> tuple[str, int]:
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE)):
            return file, frame.f_lineno
        frame = frame.f_back
    return "", 0
