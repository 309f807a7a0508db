"""How long each node of one backward pass took, and in which order the engine ran them."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle


class Stopwatch:
    """Microseconds between two marks: of the host's clock, or on a GPU of the stream's events.

    A GPU works behind the host's back, so only its own events say how long it worked.

    Attributes:
        clock: ``host`` or ``cuda``.
    """

    def __init__(self, device: torch.device) -> None:
        self.clock = "cuda" if device.type == "cuda" else "host"

    def mark(self) -> Any:
        if self.clock == "host":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        """Microseconds from one mark to a later one; waits until a GPU has got there."""
        if self.clock == "host":
            return float(end - start) * 1e6
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3


class NodeTimes:
    """Marks the time right before and right after each node of the next backward pass.

    Make it after every other hook of ours, so that their work lies outside of the marks. What is
    measured of a node of a few microseconds is to about one microsecond the way into the hooks.
    """

    def __init__(self, nodes: list[Node], stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._started: dict[int, Any] = {}
        self._spans: dict[int, tuple[Any, Any]] = {}
        self._order: dict[int, int] = {}
        self._handles: list[RemovableHandle] = []
        for position, node in enumerate(nodes):
            self._handles.append(node.register_prehook(self._before(position)))
            self._handles.append(node.register_hook(self._after(position)))
        self.failure = ""

    def collect(self) -> dict[int, dict[str, Any]]:
        """Takes the hooks off; ``backward_us`` and ``order`` (from 0) by position of the node."""
        self.remove()
        found = {
            position: {
                "backward_us": round(self._stopwatch.between(*span), 3),
                "order": self._order[position],
            }
            for position, span in self._spans.items()
        }
        self._spans.clear()
        self._started.clear()
        return found

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, position: int) -> Any:
        def prehook(_: tuple[torch.Tensor | None, ...]) -> None:
            try:
                self._order[position] = len(self._order)
                self._started[position] = self._stopwatch.mark()
            except Exception as error:  # an error here would abort the user's backward pass
                self.failure = repr(error)

        return prehook

    def _after(self, position: int) -> Any:
        def hook(*_: tuple[torch.Tensor | None, ...]) -> None:
            try:
                end = self._stopwatch.mark()
                self._spans[position] = (self._started[position], end)
            except Exception as error:
                self.failure = repr(error)

        return hook
