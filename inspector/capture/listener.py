"""Who receives what is observed."""

from __future__ import annotations

from typing import Protocol

from inspector.capture.measured import Measured, Table
from inspector.capture.quiet import Column
from inspector.capture.skips import Skipped


class Listener(Protocol):
    """Called in the training thread, at the boundary between two steps."""

    def on_measured(self, measured: Measured) -> None:
        """A step's numbers; on CUDA a step or two after :meth:`on_boundary` of that step."""

    def on_steps(
        self,
        first: int,
        columns: dict[str, Column],
        parameters: Table | None,
        modules: Table | None,
    ) -> None:
        """Consecutive steps: numbers by name, ``NOWHERE`` where a step has none.

        The tables have a row for each step if these were measured fully.
        """

    def on_boundary(self) -> None:
        """The step is over and the next has not begun; may block to pause training."""

    def on_described(self) -> None:
        """Module or parameter documents have changed."""

    def on_scheduled(self, probe: str, every: int, reason: str) -> None:
        """A probe is measured more seldom or more often from now on."""

    def on_skipped(self, skipped: Skipped) -> None:
        """Gradients were made, but the optimizer did not step."""

    def on_lost_loss(self, loss: float) -> None:
        """The loss of a try that was skipped, and that :meth:`on_skipped` has told of."""

    def on_late(self) -> None:
        """Gradients are first seen before the step from now on, perhaps already clipped."""

    def on_failed(self, probe: str, error: Exception) -> None:
        """One of our own probes raised and is off from now on."""
