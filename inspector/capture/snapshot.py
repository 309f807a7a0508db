"""The autograd graph of one step's loss: tagged during forward, finished after the step."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor


class GraphSnapshot:
    """Arms at a boundary, captures when the loss is recorded, finishes at the next boundary."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = weakref.ref(model)
        self._tags: Any = None
        self._pending: Any = None
        self.armed = False

    def arm(self) -> None:
        """From now on operations are tagged with module and line."""
        model = self._model()
        if model is None or self.armed:
            return
        from inspector.autograd.owners import GraphTags

        self.armed = True
        self._tags = GraphTags(model, calls=True).install()

    def take(self, loss: Tensor, step: int, accumulated: int) -> None:
        """Captures the graph of the loss, before or after its backward pass."""
        from inspector.autograd.capture import capture_graph

        model = self._model()
        if model is None or self._pending is not None:
            return
        self._pending = capture_graph(
            loss, model, step=step, tags=self._tags, accumulated=accumulated
        )
        self._untag()

    def finish(self) -> tuple[dict[str, Any], str | None] | None:
        """The document and torchviz's DOT text, if a graph was taken since arming."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        self._untag()
        self.armed = False
        return pending.finish(), pending.torchviz

    def disarm(self) -> None:
        self._untag()
        if self._pending is not None:
            self._pending.cancel()
        self._pending = None
        self.armed = False

    def _untag(self) -> None:
        if self._tags is not None:
            self._tags.remove()
            self._tags = None
