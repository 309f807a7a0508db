"""A listener that keeps everything, for tests of the capture alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from zoo import Case

from inspector.capture.measured import Measured, Table
from inspector.capture.observer import Observer
from inspector.capture.schedule import Schedule
from inspector.capture.skips import Skipped


class Listening:
    def __init__(self) -> None:
        self.rows: list[Measured] = []
        self.skips: list[str] = []
        self.late = False
        self.failures: list[tuple[str, Exception]] = []

    def on_measured(self, measured: Measured) -> None:
        for table in (measured.parameters, measured.modules):
            if table is not None:
                table.values = table.values.copy()
        self.rows.append(measured)

    def on_boundary(self) -> None: ...

    def on_described(self) -> None: ...

    def on_scheduled(self, probe: str, every: int, reason: str) -> None: ...

    def on_skipped(self, skipped: Skipped) -> None:
        self.skips.append(skipped.reason)

    def on_lost_loss(self, loss: float) -> None: ...

    def on_late(self) -> None:
        self.late = True

    def on_failed(self, probe: str, error: Exception) -> None:
        self.failures.append((probe, error))


def observe(
    case: Case, *, every: int = 1, listening: Listening | None = None, **options: Any
) -> tuple[Observer, Listening]:
    listening = listening or Listening()
    observer = Observer(case.model, case.optimizers, listening, schedule=Schedule(every), **options)
    return observer, listening


def values(table: Table | None) -> dict[tuple[str, str], float]:
    """What was measured, by quantity and subject."""
    if table is None:
        return {}
    return {
        (key.quantity, key.subject): float(value)
        for key, value, present in zip(table.keys, table.values, table.present, strict=True)
        if present
    }


def subjects(found: dict[tuple[str, str], float], quantity: str) -> dict[str, float]:
    return {subject: value for (name, subject), value in found.items() if name == quantity}


def close_to(a: float, b: float, tolerance: float = 1e-4) -> bool:
    return bool(np.isclose(a, b, rtol=tolerance, atol=1e-7))
