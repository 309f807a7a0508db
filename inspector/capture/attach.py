"""One removable handle for everything that is hung on a model and its optimizers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import torch

from inspector.capture import native
from inspector.capture.step_hooks import StepStart, remove_step_hook


class Attachment:
    """Undoes in reverse order whatever was attached through it; ``remove()`` twice is safe.

    Models and optimizers are held weakly, so that watching keeps nothing alive.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def forward_hook(
        self, module: torch.nn.Module, hook: Callable[..., None], *, with_kwargs: bool = False
    ) -> ToggledHook:
        """A forward hook; raises what ``register_forward_hook`` raises (ScriptModules refuse)."""
        handle = module.register_forward_hook(hook, with_kwargs=with_kwargs)
        self._undo.append(handle.remove)
        return ToggledHook(module._forward_hooks, handle.id, hook)

    def forward_pre_hook(self, module: torch.nn.Module, hook: Callable[..., None]) -> ToggledHook:
        """A hook before forward, which also gets the keyword arguments."""
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._undo.append(handle.remove)
        return ToggledHook(module._forward_pre_hooks, handle.id, hook)

    def step_hooks(
        self,
        optimizer: torch.optim.Optimizer,
        before: Callable[..., None],
        after: Callable[..., None],
    ) -> ToggledHook:
        """Hooks around ``optimizer.step()``; gives the one after it.

        The one before is called when the gradients are there that are stepped with: a step that
        is given a closure has them from it.
        """
        start = StepStart(before)
        self._undo.append(start.silence)
        hook: Callable[..., Any] = start
        if (extension := native.load()) is not None:
            ordinary = extension.OrdinaryStep(before, start)
            self._undo.append(ordinary.silence)
            hook = ordinary.before
        for hooks, key in (
            (optimizer._optimizer_step_pre_hooks, optimizer.register_step_pre_hook(hook).id),
            (optimizer._optimizer_step_post_hooks, optimizer.register_step_post_hook(after).id),
        ):
            undo = functools.partial(
                remove_step_hook, weakref.ref(optimizer), weakref.ref(hooks), key
            )
            self._undo.append(undo)
        return ToggledHook(hooks, key, after)

    def replace_method(self, owner: object, name: str, function: Callable[..., Any]) -> None:
        """Shadows a method by an instance attribute of the same signature, until removal."""
        function = _signed(function, getattr(owner, name))
        previous = vars(owner).get(name)
        setattr(owner, name, function)
        reference = weakref.ref(owner)

        def restore() -> None:
            target = reference()
            if target is None or vars(target).get(name) is not function:
                return
            if previous is None:
                delattr(target, name)
            else:
                setattr(target, name, previous)

        self._undo.append(restore)

    def on_remove(self, undo: Callable[[], None]) -> None:
        self._undo.append(undo)

    def remove(self) -> None:
        while self._undo:
            self._undo.pop()()


def _signed(function: Callable[..., Any], like: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the signature of another one, which libraries look at."""
    if not isinstance(function, functools.partial) and not inspect.isbuiltin(function):
        return function
    signed: Any = functools.partial(function)
    with contextlib.suppress(TypeError, ValueError):
        signed.__signature__ = inspect.signature(like)
    return signed  # type: ignore[no-any-return]


class ToggledHook:
    """A hook that can leave its owner for a while, so that it then costs nothing."""

    __slots__ = ("_hook", "_hooks", "_key")

    def __init__(self, hooks: Any, key: int, hook: Callable[..., None]) -> None:
        self._hooks: weakref.ref[Any] = weakref.ref(hooks)
        self._key = key
        self._hook = hook

    def switch(self, on: bool, *, first: bool = False) -> None:
        """``first`` puts it before the hooks that are there."""
        hooks = self._hooks()
        if hooks is None:
            return
        if on:
            hooks[self._key] = self._hook
            if first:
                hooks.move_to_end(self._key, last=False)
        else:
            hooks.pop(self._key, None)


class Inert:
    """Base of our hooks: copying or pickling a watched module copies a hook that does nothing.

    The copy is a method of the standard library that takes anything and returns None, so that a
    pickled model loads where this package is not installed.
    """

    __slots__ = ()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Callable[..., None]:
        return contextlib.nullcontext().__exit__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")
