"""The parts of a model that a script calls one by one, where it never calls the model itself."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from torch import nn

from inspector.capture.attach import ToggledHook
from inspector.capture.modules import walk
from inspector.capture.wrappers import parts_called
from inspector.timemachine.replay import eager

Toggles = tuple[ToggledHook, ...]
_TRIED = 32  # steps after which it is known what listening costs
_SHARE = 0.03  # of the time, which it may take


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """By path, every module below the model that can be called, and be seen when it is."""
    inner = eager(model)
    seen = {id(module) for module, record in walk(inner) if not record.badge}
    return {
        path: module
        for path, module in inner.named_modules()
        if path and id(module) in seen and "" in parts_called(module)
    }


class Survey:
    """Listens to all parts at first, then no longer to those that only other parts call.

    Attributes:
        costly: the script calls so many, for so little work, that listening costs too much.
    """

    def __init__(self, toggles: dict[int, Toggles]) -> None:
        self.costly = False
        self._toggles = toggles
        self._called: set[int] = set()
        self._inner: set[int] = set()
        self._steps = self._own = self._since = 0

    def outer(self, module: nn.Module) -> None:
        """The script has called it."""
        self._called.add(id(module))

    def inner(self, module: nn.Module) -> None:
        """Another part has called it."""
        self._inner.add(id(module))

    def end_step(self, spent: int, now: Callable[[], int] = perf_counter_ns) -> None:
        """An optimizer is about to step; ``spent``: nanoseconds that listening has taken since."""
        for one in self._inner - self._called:
            for toggle in self._toggles.pop(one, ()):
                toggle.switch(False)
        if self._inner:  # hooks that have left cost nothing from here on
            self._inner.clear()
            self._steps = self._own = 0
            self._since = now()
            return
        self._steps += 1
        self._own += spent
        if self._steps >= _TRIED:
            self.costly = self._own > _SHARE * (now() - self._since)
            self._steps = self._own = 0
            self._since = now()

    def switch(self, on: bool) -> None:
        """Listens, or lets the coming steps pass."""
        for toggles in self._toggles.values():
            for toggle in toggles:
                toggle.switch(on)
        self._steps = self._own = 0
        self._since = perf_counter_ns()
