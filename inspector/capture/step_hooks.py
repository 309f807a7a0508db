"""Hooks around an optimizer's step: called when the gradients are there, removable at any time."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

from torch.optim import Optimizer

Hook = Callable[..., Any]
_STEP = Optimizer.profile_hook_step(lambda: None).__code__
"""The code that calls the hooks around ``step()``, of every optimizer."""


class StepStart:
    """Calls a hook before a step; if that computes its gradients by a closure, right after that.

    Lightning steps in this way always: forward, backward and clipping are in the closure. Nearly
    all optimizers call it before they do anything else, so that afterwards everything is as at the
    beginning of an ordinary step. What it does when it is called again (LBFGS) belongs to the
    step. An optimizer that has changed weights before it calls its closure (SAM) is noticed in its
    first step, where the hook is then not called, and has it called before the step from then on.
    """

    def __init__(self, hook: Hook) -> None:
        self._hook: Hook | None = hook
        self._ready: bool | None = None  # whether the closure comes first; None: not known yet

    def silence(self) -> None:
        """The hook is not called any more, not even by a step that runs."""
        self._hook = None

    def __call__(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        rest = dict(kwargs)
        closure = args[1] if len(args) > 1 else rest.pop("closure", None)
        if closure is None:
            self._call(optimizer, args[:1], rest)
            return None
        if self._ready is False or self._hook is None:
            self._call(optimizer, args, kwargs)
            return None
        began = None if self._ready else _versions(optimizer)
        waiting = [True]

        def evaluate(*arguments: Any, **options: Any) -> Any:
            first, waiting[:] = bool(waiting), []
            if first and began is not None:
                self._ready = began == _versions(optimizer)
            result = closure(*arguments, **options)
            if first and self._ready:
                self._call(optimizer, args[:1], rest)
            return result

        if len(args) > 1:
            return (args[0], evaluate, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluate}

    def _call(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._hook is not None:
            self._hook(optimizer, args, kwargs)


def _versions(optimizer: Optimizer) -> list[int]:
    """How often each parameter was changed."""
    return [p._version for group in optimizer.param_groups for p in group["params"]]


def remove_step_hook(
    optimizer: weakref.ref[Optimizer] | None,
    hooks: weakref.ref[MutableMapping[int, Hook]],
    key: int,
) -> None:
    """Removes a hook; during a step that goes through the hooks, as the last of them is called.

    Without an optimizer they are those of all.

    An ``OrderedDict`` must not lose an entry before it was gone through.
    """
    there = hooks()
    if there is None or key not in there:
        return
    if not _gone_through(optimizer, there):
        del there[key]
        return
    last = list(there)[-1]
    if not isinstance(there[last], _Last):
        there[last] = _Last(there, last)
    there[last].remove(key)  # type: ignore[attr-defined]


class _Last:
    """Stands for the last hook of a step, and removes others when it is called."""

    def __init__(self, hooks: MutableMapping[int, Hook], key: int) -> None:
        self._hooks, self._key, self._hook = hooks, key, hooks[key]
        self._removed: list[int] = []

    def remove(self, key: int) -> None:
        self._removed.append(key)
        if key == self._key:
            self._hook = _nothing
        else:
            self._hooks[key] = _nothing

    def __call__(self, *args: Any) -> Any:
        self._hooks[self._key] = self._hook
        for key in self._removed:
            del self._hooks[key]
        return self._hook(*args)


def _gone_through(
    optimizer: weakref.ref[Optimizer] | None, hooks: MutableMapping[int, Hook]
) -> bool:
    """Whether a step on this thread's stack has called one of the hooks, and not the last yet."""
    whose = None if optimizer is None else optimizer()
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _STEP and (not optimizer or frame.f_locals.get("self") is whose):
            name = "post_hook" if "out" in frame.f_locals else "pre_hook"
            running = frame.f_locals.get(name)
            return any(hook is running for hook in list(hooks.values())[:-1])
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _nothing(*_args: Any) -> None:
    """Stands in the place of a hook that is removed."""
