"""Noticing NaN and infinity once, where they first appeared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from inspector.capture.transfer import ABSENT


@dataclass(frozen=True, slots=True)
class Onset:
    """The first place where something became non-finite.

    Attributes:
        where: ``activation``, ``loss``, ``gradient`` or ``parameter``, the earliest in a step.
        module: path of the module whose output it was, or that owns the parameter.
        parameter: name of the parameter, for gradients and parameters.
        count: number of NaN and infinite values there.
    """

    where: str
    module: str | None = None
    module_type: str = ""
    parameter: str | None = None
    count: int = 0


class NonFiniteWatch:
    """Answers with an onset when values turn non-finite, and is silent until they recover.

    A spell that began between two full measurements, with a loss alone, gets a second onset when
    a module is known.
    """

    def __init__(self) -> None:
        self._ongoing = False
        self._named = False

    @property
    def ongoing(self) -> bool:
        """Whether a spell has not ended."""
        return self._ongoing

    def update(self, onset: Onset | None, *, thorough: bool) -> Onset | None:
        """The onset, if it is news. Only a ``thorough`` look without findings ends a spell."""
        if onset is None:
            if thorough:
                self._ongoing = False
            return None
        named = onset.module is not None
        if self._ongoing and (self._named or not named):
            return None
        self._ongoing, self._named = True, named
        return onset


def bad_loss(loss: float | None) -> Onset | None:
    if loss is None or math.isfinite(loss):
        return None
    return Onset("loss", count=1)


def first_bad(counts: Sequence[float]) -> int | None:
    """Position of the first positive count."""
    return next((i for i, count in enumerate(counts) if count > 0 and count != ABSENT), None)


def first_nonfinite(values: Sequence[float]) -> int | None:
    """Position of the first NaN or infinity."""
    return next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
