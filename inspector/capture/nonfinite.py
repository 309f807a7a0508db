"""Noticing NaN and infinity once, where they first appeared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.capture.transfer import ABSENT

if TYPE_CHECKING:
    from inspector.capture.measured import Measured

_LONG = 100  # full steps


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

    What is bad and was not looked at has not recovered, as one model of a GAN while the other
    one steps; without a look for long, it is over as well.

    A spell that began between two full measurements, with a loss alone, gets a second onset when
    a module is known.
    """

    def __init__(self) -> None:
        self._last: Onset | None = None
        self._named = False
        self._unseen = 0

    @property
    def ongoing(self) -> bool:
        """Whether a spell has not ended."""
        return self._last is not None

    def update(self, measured: Measured, onset: Onset | None) -> Onset | None:
        """The onset, if it is news. Only a full step without findings ends a spell."""
        if onset is None:
            if self._last is not None and measured.full:
                self._unseen += 1
                if measured.shows(self._last) or self._unseen >= _LONG:
                    self._last = None
            return None
        ongoing, named = self.ongoing, onset.module is not None
        self._last, self._unseen = onset, 0
        if ongoing and (self._named or not named):
            return None
        self._named = named
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
