"""The autograd graph of one step's loss: tagged during forward, finished after the step."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from inspector.capture.reductions import is_sharded


class GraphSnapshot:
    """Arms at a boundary, captures when the loss is recorded, finishes at the next boundary.

    Attributes:
        armed: whether a loss, or the end of its step, is waited for.
        asked: whether somebody wants it. What is taken unasked comes without torchviz's text,
            whose libraries would have to be loaded, and not at all where hooks could make a model
            compile anew or a look at a parameter is up to all ranks.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = weakref.ref(model)
        self._tags: Any = None
        self._pending: Any = None
        self.armed = self.asked = False

    def arm(self, *, asked: bool = True) -> None:
        """From now on operations are tagged with module and line."""
        self.asked |= asked
        model = self._model()
        if model is None or self.armed:
            return
        from inspector.autograd.owners import GraphTags, visible_modules

        if not asked and (
            len(visible_modules(model)) < len(list(model.named_modules()))
            or any(is_sharded(parameter) for parameter in model.parameters())
        ):
            return
        self.armed = True
        self._tags = GraphTags(model, calls=True).install()

    def take(self, loss: Tensor, step: int, accumulated: int) -> None:
        """Captures the graph of the loss, before or after its backward pass."""
        from inspector.autograd.capture import capture_graph

        model = self._model()
        if model is None or self._pending is not None:
            return
        if not self.asked and self._tags is not None and not self._tags.ran:
            return  # recorded late: a loss from before the tags
        self._pending = capture_graph(
            loss, model, step=step, tags=self._tags, accumulated=accumulated, torchviz=self.asked
        )
        self._untag()

    def finish(self) -> tuple[dict[str, Any], str | None] | None:
        """The document and torchviz's DOT text, if a graph was taken since arming."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        self._untag()
        document = pending.finish() | {"asked": self.asked}
        self.armed = self.asked = False
        return document, pending.torchviz

    def disarm(self) -> None:
        self._untag()
        if self._pending is not None:
            self._pending.cancel()
        self._pending = None
        self.armed = self.asked = False

    def _untag(self) -> None:
        if self._tags is not None:
            self._tags.remove()
            self._tags = None
