"""Whether a backward pass runs, and whether it has left gradients in the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Variable

from inspector.capture import native
from inspector.capture.readings import states

_REFERENCES = 8


class BackwardPasses:
    """Tells backward passes through the model from others, which leave its gradients alone.

    Attributes:
        task: the pass that runs, as the engine numbers it; None between passes.
        references: a few parameters whose gradients are looked at, all of them at first.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.task: int | None = None
        self.follow(parameters)
        self._states = states if (extension := native.load()) is None else extension.states
        self._before: tuple[int | None, ...] = ()

    def follow(self, parameters: Sequence[Tensor]) -> None:
        """Looks at other parameters."""
        self.references = tuple(parameters)
        self._in_turn = False

    def refer(self, parameters: Sequence[Tensor]) -> None:
        """Looks at a few of those that have a gradient, once there are any."""
        reached = [p for p in parameters if p.grad is not None]
        if reached and not self._in_turn:
            stride = max(1, len(reached) // _REFERENCES)
            references = tuple(reached[::stride][: _REFERENCES + 1])
            if [*map(id, references)] != [*map(id, self.references)]:
                self.references = references

    @property
    def few(self) -> bool:
        """Whether gradients have been seen, so that only a few parameters are looked at."""
        return len(self.references) <= _REFERENCES + 1

    def begin(self, end: Callable[[], None]) -> None:
        """Has the engine call ``end`` when the pass that runs is over."""
        self._before = self._states(self.references)
        Variable._execution_engine.queue_callback(end)

    def resume(self, before: tuple[int | None, ...]) -> None:
        """The extension has seen a pass begin, with the gradients in these states."""
        self.task, self._before = 0, before

    def widen(self, parameters: Sequence[Tensor]) -> bool:
        """Looks at all gradients from now on, if those that tell of passes have none and others do.

        So it is where parts of the model are frozen in turn.
        """
        seen = {id(p) for p in self.references}
        fed = any(p.grad is not None for p in parameters if id(p) not in seen)
        if not fed or any(p.requires_grad and p.grad is not None for p in self.references):
            return False
        self.references, self._in_turn = tuple(parameters), True
        return True

    def end(self, parameters: Sequence[Tensor]) -> tuple[bool, bool]:
        """Whether the pass has left gradients, and whether there had been none before it."""
        received = self._states(self.references) != self._before or self.widen(parameters)
        return received, received and all(version is None for version in self._before[1::2])

    def have_failed(self) -> bool:
        """Whether a pass has raised: the engine never calls at its end."""
        if self.task is None or torch._C._current_graph_task_id() != -1:
            return False
        self.task = None
        return True
