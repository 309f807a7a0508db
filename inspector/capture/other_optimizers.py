"""Optimizers that nobody watches, and that step parameters of the watched model all the same.

A script that makes a new optimizer in the middle of training leaves the old one behind: the new
one takes its place where that is beyond doubt, and otherwise the script's author is told.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from inspector.capture.parameters import plain
from inspector.capture.step_hooks import remove_step_hook
from inspector.capture.uncompiled import never_compiled

PATIENCE = 8
"""Steps in a row, after which an optimizer takes the place of one that has made none meanwhile."""

_SOON = 3  # steps, after which one is told of that goes on beside those that are watched
_is_compiling = torch.compiler.is_dynamo_compiling


class Listener(Protocol):
    """Called right before the other optimizer steps."""

    def on_unseen_step(self) -> None:
        """What was measured since the last step belongs to steps that nobody watches."""

    def on_successor(self, position: int, optimizer: Optimizer, unseen: int) -> None:
        """It takes the place of a watched one, after so many steps of its own."""

    def on_return(self, optimizer: Optimizer) -> None:
        """One that was watched before steps again beside its successor."""

    def on_stranger(self, optimizer: Optimizer, names: Sequence[str]) -> None:
        """It steps these parameters of the model, which no watched optimizer has."""

    def on_failed(self, probe: str, error: Exception) -> None:
        """The watch over other optimizers has raised and is off from now on."""


@dataclass(slots=True)
class _Other:
    """Of an optimizer that is not watched: by place of a watched one, the steps of that one when
    it was last seen to step, and how many this one has made since."""

    marks: list[int]
    rows: list[int]
    steps: int = 0


class OtherOptimizers:
    """Hears of every optimizer's steps by PyTorch's global hook, until :meth:`close`.

    One takes the place of a watched one that no longer exists at once, before its first step; of
    one that does, after :data:`PATIENCE` steps of the same parameters. One that was followed once
    and steps again is only told of, since which of them is the training's is the script's to say.

    Args:
        stepped: how often a watched optimizer has stepped, by its place.
        held: the parameters that it had, also when it is gone.
        alone: whether the watch may act on an optimizer's end, which comes when the garbage is
            collected: ranks that train together would not agree on a step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        listener: Listener,
        *,
        stepped: Callable[[int], int],
        held: Callable[[int], Iterable[Tensor]],
        alone: bool,
    ) -> None:
        self._model = weakref.ref(model)
        self._watched = [weakref.ref(optimizer) for optimizer in optimizers]
        self._first = self._watched[0]
        self._known: weakref.WeakKeyDictionary[Optimizer, _Other] = weakref.WeakKeyDictionary()
        self._former: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._listener = listener
        self._stepped, self._held, self._alone = stepped, held, alone
        handle = register_optimizer_step_pre_hook(self._on_step)
        self._remove = partial(remove_step_hook, None, handle.hooks_dict_ref, handle.id)

    def close(self) -> None:
        """Hears nothing any more; twice is fine."""
        self._remove()

    @never_compiled
    def _on_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if _is_compiling() or optimizer is self._first():
            return
        try:
            self._note(optimizer)
        except Exception as error:
            self.close()
            self._listener.on_failed("other optimizers", error)

    def _note(self, optimizer: Optimizer) -> None:
        if any(reference() is optimizer for reference in self._watched):
            return
        places = range(len(self._watched))
        stepped = [self._stepped(at) for at in places]
        other = self._known.get(optimizer)
        if other is None:
            other = self._known[optimizer] = _Other([*stepped], [0 for _ in places])
        other.steps += 1
        for at in places:
            if other.marks[at] != stepped[at]:
                other.marks[at], other.rows[at] = stepped[at], 0
            other.rows[at] += 1
        orphaned = self._orphaned(optimizer, other)
        if orphaned is not None:
            self._follow(orphaned, optimizer, other.steps - 1)
        elif other.steps == _SOON:
            self._introduce(optimizer)
        elif optimizer not in self._former:
            self._wait(optimizer, other)

    def _orphaned(self, optimizer: Optimizer, other: _Other) -> int | None:
        """The place of a watched optimizer that is gone, if this one goes on with its work.

        That is the one whose parameters it steps, or else any, for parameters of the model that
        no watched optimizer has.
        """
        gone = [at for at, reference in enumerate(self._watched) if reference() is None]
        if not gone or not self._alone or (other.steps > 1 and other.steps % PATIENCE):
            return None
        at = max(gone, key=lambda at: len(self._shared(at, optimizer)))
        return at if self._shared(at, optimizer) or self._unwatched(optimizer) else None

    def _introduce(self, optimizer: Optimizer) -> None:
        if optimizer in self._former:
            self._listener.on_return(optimizer)
        elif names := self._unwatched(optimizer):
            self._listener.on_stranger(optimizer, names)

    def _wait(self, optimizer: Optimizer, other: _Other) -> None:
        """One that steps the same parameters as a watched one, which rests, takes its place."""
        for at, row in enumerate(other.rows):
            if row in (PATIENCE - 1, PATIENCE) and self._shared(at, optimizer):
                if row < PATIENCE:
                    self._listener.on_unseen_step()
                else:
                    self._follow(at, optimizer, PATIENCE - 1)
                return

    def _follow(self, at: int, optimizer: Optimizer, unseen: int) -> None:
        if (before := self._watched[at]()) is not None:
            self._former.add(before)
        self._former.discard(optimizer)
        self._known.pop(optimizer, None)
        self._listener.on_successor(at, optimizer, unseen)
        self._watched[at] = weakref.ref(optimizer)
        self._first = self._watched[0]

    def _shared(self, at: int, optimizer: Optimizer) -> set[int]:
        return {id(tensor) for tensor in self._held(at)} & _parameters(optimizer)

    def _unwatched(self, optimizer: Optimizer) -> list[str]:
        """Names of the model's parameters that it steps and that no living watched one does."""
        model = self._model()
        if model is None:
            return []
        alive = [found for reference in self._watched if (found := reference()) is not None]
        own = _parameters(optimizer).difference(*map(_parameters, alive))
        return [plain(name) for name, tensor in model.named_parameters() if id(tensor) in own]


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
