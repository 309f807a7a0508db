"""The step whose histograms are taken, and whose turn it is among its subjects."""

from __future__ import annotations

import time
from collections.abc import Callable

from inspector.capture.clock import Clock
from inspector.capture.histograms import HistogramBatch, HistogramSchedule
from inspector.capture.stepping import OptimizerProbe

NAME = "histograms"


class HistogramTurns:
    """Histograms of parameters and their gradients in the steps that have some.

    Attributes:
        batch: those of the step that runs; None in most steps.
    """

    def __init__(self, clock: Clock, fail: Callable[[str, Exception], None]) -> None:
        self.batch: HistogramBatch | None = None
        self.schedule = HistogramSchedule()
        self.broken = False
        self._clock = clock
        self._fail = fail

    def add(self, kind: str, probe: OptimizerProbe, names: tuple[str, ...]) -> None:
        """``gradient`` or ``weight`` of the parameters whose turn it is."""
        if self.batch is None or self.broken:
            return
        started = time.perf_counter_ns()
        try:
            for turn in self.schedule.pick(len(probe.parameters)):
                parameter = probe.parameters[turn]
                tensor = parameter.grad if kind == "gradient" else parameter
                self.batch.add(kind, names[probe.positions[turn]], tensor)
        except Exception as error:
            self.broken = True
            self._fail(NAME, error)
        self._clock.book(NAME, started)

    def end(self, probes: list[OptimizerProbe], names: tuple[str, ...]) -> HistogramBatch | None:
        """The step's histograms; weights are those after the step."""
        batch = self.batch
        if batch is not None:
            for probe in probes:
                self.add("weight", probe, names)
            self.schedule.ended(self._clock.own_ns / 1e9)
            self.batch = None
        return batch
