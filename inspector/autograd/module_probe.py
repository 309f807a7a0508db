"""One call of a module, kept with the gradient at its output, so that it can be checked."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from inspector.autograd.gradcheck import check_module


class ModuleProbe:
    """Keeps one call of a module, with the gradient that arrives at its output, for a check."""

    def __init__(self, module: nn.Module, path: str) -> None:
        self._module = module
        self._twin: nn.Module | None = None
        self._path = path
        self._seen: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._weights: list[Tensor | None] = []
        self._handles: list[Any] = [
            module.register_forward_pre_hook(_Forwarding(self._enter), with_kwargs=True),
            module.register_forward_hook(_Forwarding(self._leave)),
        ]

    def finish(self) -> dict[str, Any]:
        """The check's result with the module's path as ``module``."""
        self.remove()
        if (
            self._seen is None
            or self._twin is None
            or not any(weight is not None for weight in self._weights)
        ):
            reason = "No gradient arrived at this module's output in the recorded pass."
            return {"kind": "module", "module": self._path, "reason": reason, "inputs": [],
                    "difference": None, "agrees": False}  # fmt: skip
        args, kwargs = self._seen
        return {"module": self._path, **check_module(self._twin, args, kwargs, self._weights)}

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and self._seen is None:
            # The step that follows will move the parameters: the copy stays at this point.
            self._twin = copy.deepcopy(self._module)
            self._seen = tree_map_only(Tensor, lambda t: t.detach().clone(), (args, kwargs))

    def _leave(self, _: nn.Module, __: object, output: Any) -> None:
        if self._weights or not torch.is_grad_enabled():
            return
        outputs = [output] if isinstance(output, Tensor) else list(output)
        self._weights = [None] * len(outputs)
        for place, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                handle = tensor.register_hook(self._arrived(place))  # type: ignore[no-untyped-call]
                self._handles.append(handle)

    def _arrived(self, place: int) -> Any:
        def hook(gradient: Tensor) -> None:
            self._weights[place] = gradient.detach().clone()

        return hook


class _Forwarding:
    """A hook that calls ``action``, returns None, swallows its errors and is inert in copies."""

    def __init__(self, action: Any = None) -> None:
        self._action = action

    def __call__(self, *args: Any) -> None:
        if self._action is not None:
            with contextlib.suppress(Exception):
                self._action(*args)

    def __reduce__(self) -> tuple[type[_Forwarding], tuple[()]]:
        return _Forwarding, ()
