"""Exchanging activations that ``forward`` calls as functions.

Stands alone: an exported script holds these two as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Exchange(TorchFunctionMode):
    """While it is active, functions such as ``relu`` compute what other modules do.

    Meant are all spellings: ``torch.relu(x)``, ``F.relu(x)``, ``x.relu()`` and those in place.
    """

    def __init__(self, wanted: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.active = False
        self.new: dict[Any, Callable[[Tensor], Tensor]] = {
            function: module
            for name, module in wanted.items()
            for place in (torch, F, torch.special, torch.Tensor)
            for spelling in (name, f"{name}_")
            if (function := getattr(place, spelling, None)) is not None
        }

    def __torch_function__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        new = self.new.get(function)
        if new is None:
            return function(*args, **kwargs)
        x, *others = args or (kwargs["input"],)
        in_place = kwargs.get("inplace") or any(other is True for other in others)
        with torch._C.DisableTorchFunction():  # what is new is not exchanged in its turn
            if in_place or function.__name__.endswith("_"):
                return x.copy_(new(x.clone()))
            return new(x)


def exchange(module: nn.Module, wanted: Mapping[str, nn.Module]) -> Exchange:
    """Exchanges functions, by name, in the forward of a module and of the modules in it."""
    mode = Exchange(wanted)

    def exchanged(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def within(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if mode.active:
                return forward(self, *args, **kwargs)
            mode.active = True
            try:
                with mode:
                    return forward(self, *args, **kwargs)
            finally:
                mode.active = False

        return within

    for part in module.modules():  # each by itself: a checkpoint calls them again in backward
        if isinstance(part.forward, MethodType):
            part.forward = MethodType(exchanged(part.forward.__func__), part)
    return mode
