"""How long a loop waits for its batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Waiting:
    """Sums what the running step has waited for its batches, in seconds; None if unknown."""

    def __init__(self, step: Callable[[], int]) -> None:
        self.seconds: float | None = None
        self._step = step
        self._of = -1

    def add(self, seconds: float) -> None:
        """The running step has waited so long for one of its batches."""
        step = self._step()
        if step != self._of or self.seconds is None:
            self._of, self.seconds = step, 0.0
        self.seconds += seconds


class Batches(Generic[T]):
    """What ``loader`` yields, in its order and as it is; asking for each batch is timed."""

    def __init__(self, loader: Iterable[T], waiting: Waiting) -> None:
        self._loader, self._waiting = loader, waiting

    def __iter__(self) -> Iterator[T]:
        batches = iter(self._loader)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waiting.add(time.perf_counter() - asked)
            yield batch

    def __len__(self) -> int:
        """Raises TypeError where the loader has no length."""
        sized: Any = self._loader
        return len(sized)
