"""Autograd graphs and backward passes of single steps, on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from inspector.capture.backward_snapshot import BackwardSnapshot
from inspector.capture.snapshot import GraphSnapshot

_GRAPH, _BACKWARD = "autograd graph", "backward pass"


class Listener(Protocol):
    """Who keeps what was taken."""

    def on_graph(self, document: dict[str, Any], dot: str | None) -> None:
        """A step's graph, and torchviz's text of it where there is one."""

    def on_backward(self, document: dict[str, Any]) -> None:
        """A step's backward pass, node by node."""

    def on_failed(self, probe: str, error: Exception) -> None:
        """A snapshot has raised and is not taken."""


class StepSnapshots:
    """Armed at one boundary, taken with the step's loss, handed over at the next boundary.

    A fault of ours ends the snapshot, never the training.
    """

    def __init__(self, model: torch.nn.Module, listener: Listener) -> None:
        self._graph = GraphSnapshot(model)
        self._backward = BackwardSnapshot(model)
        self._listener = listener

    @property
    def armed(self) -> bool:
        """Whether a loss, or the end of its step, is waited for."""
        return bool(self._graph.armed or self._backward.armed)

    def arm_graph(self, *, asked: bool = True) -> None:
        """The graph of the coming step is wanted, by somebody or only to have one."""
        self._guarded(_GRAPH, lambda: self._graph.arm(asked=asked))

    def give_up_graph(self) -> None:
        """A graph that nobody asked for is not waited for any longer."""
        if self._graph.armed and not self._graph.asked:
            self._graph.disarm()

    def arm_backward(self, wanted: dict[str, Any]) -> None:
        """A backward pass is wanted: the coming one, or what ``wanted`` says."""
        self._guarded(_BACKWARD, self._backward.arm, wanted)

    def take(self, loss: Tensor, step: int, passes: Callable[[], int]) -> None:
        """The loss of the step that runs.

        Args:
            passes: how many backward passes are piled up in the gradients.
        """
        if self._backward.armed:
            self._guarded(_BACKWARD, self._backward.take, loss, step)
        if self._graph.armed:
            self._guarded(_GRAPH, lambda: self._graph.take(loss, step, passes()))

    def finish(self) -> None:
        """At a boundary: hands over what was taken."""
        if self._graph.armed:
            self._guarded(_GRAPH, self._finish_graph)
        self._guarded(_BACKWARD, self._finish_backward)

    def _finish_graph(self) -> None:
        if (taken := self._graph.finish()) is not None:
            self._listener.on_graph(*taken)

    def _finish_backward(self) -> None:
        if (document := self._backward.finish()) is not None:
            self._listener.on_backward(document)

    def disarm(self) -> None:
        """Nothing is waited for any more."""
        self._graph.disarm()
        self._backward.disarm()

    def _guarded(self, part: str, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception as error:
            (self._graph if part == _GRAPH else self._backward).disarm()
            self._listener.on_failed(part, error)
