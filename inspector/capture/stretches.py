"""Entering and leaving a stretch of steps that Python does not attend; see ``stretch.c``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.capture.clock import Clock
from inspector.capture.flight import Flight
from inspector.capture.forward import ForwardProbe
from inspector.capture.full_steps import FullSteps, References
from inspector.capture.landing import Landing
from inspector.capture.listener import Listener
from inspector.capture.measured import Measured, Table
from inspector.capture.nonfinite import bad_loss
from inspector.capture.optimizer_groups import Places
from inspector.capture.plain import Landed
from inspector.capture.probes import Probes
from inspector.capture.quiet import CALLS_NS, MOST_NS, NOWHERE, Taken
from inspector.capture.schedule import Schedule
from inspector.capture.stepping import OptimizerProbe

_SCALE = "grad_scale"
_REFUSALS = 3  # of numbers that the extension cannot take, after which it is not asked again
_LONGEST_PAUSE = 1024  # steps after stretches of full steps that had none


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of the step that runs.

    Attributes:
        scalars: what the script has recorded.
        pass_began: the states of the gradients as a backward pass began, if one has not ended.
    """

    scalars: dict[str, float]
    pass_began: tuple[int | None, ...] | None


class Stretches:
    """Lets the extension write down steps, and hands over what it has.

    Attributes:
        after_step: the script records a step's numbers after the step.
        full: what measures the steps of the open stretch fully; None in quiet ones.

    Args:
        end_backward: is called as a backward pass ends that the extension cannot end.
    """

    def __init__(
        self,
        forward: ForwardProbe,
        clock: Clock,
        schedule: Schedule,
        landing: Landing,
        listener: Listener,
        end_backward: Callable[[], None],
    ) -> None:
        self.after_step = False
        self.full: FullSteps | None = None
        self._made: FullSteps | None = None
        self._refused = self._pause = self._again_at = 0
        self._forward = forward
        self._end_backward = end_backward
        self._clock = clock
        self._schedule = schedule
        self._landing = landing
        self._listener = listener

    @property
    def open(self) -> bool:
        return bool(self._clock.pulse.open)

    def enter(self, until: int, probe: OptimizerProbe, others: Places) -> None:
        """Leaves the steps before ``until`` to the extension: quiet ones."""
        if self._worthwhile(until):
            self._enter(until, probe, others, None)

    def enter_full(
        self, until: int, probes: Probes, references: References, others: Places
    ) -> None:
        """Leaves full steps to the extension, of one optimizer."""
        full = self._made
        if full is None or not full.fits(probes, self._forward, references):
            full = FullSteps(probes, self._forward, references, self._end_backward)
            self._made = full
        if self._worthwhile(until) and self._clock.step >= self._again_at:
            full.begin()
            self._enter(until, probes.each[0], others, full)

    def forget(self) -> None:
        """Other parameters are measured now, or none."""
        self._made = None

    def _worthwhile(self, until: int) -> bool:
        pulse = self._clock.pulse
        return not pulse.open and self._refused <= _REFUSALS and until - pulse.step >= 2

    def _enter(
        self, until: int, probe: OptimizerProbe, others: Places, full: FullSteps | None
    ) -> None:
        pulse = self._clock.pulse
        self.full = full
        pulse.passes, pulse.usual = probe.passes, probe.usual
        pulse.late = self.after_step
        book = None if full is None else full.book
        pulse.begin(until, MOST_NS, self._clock.last, book, others)

    def note_scale(self, scale: Any) -> None:
        """The factor of a GradScaler that is about to step."""
        if scale is not None:
            self._clock.pulse.take(None, {_SCALE: scale})

    def leave(self, probe: OptimizerProbe, *, refused: bool = False) -> Running:
        """Takes over.

        The last step is held if it still waits for its numbers. ``refused`` says that the script
        records something that the extension cannot take.
        """
        self._refused += refused
        pulse, full = self._clock.pulse, self.full
        late, taken = pulse.late and not (full is not None and full.begun), Taken(pulse)
        self._clock.resume(taken.since_ns)
        parameters = modules = began = None
        spent: dict[str, int] = {}
        if full is None:
            probe.count(pulse.passes)
        else:
            parameters, modules, spent, then = full.end()
            began = then if full.book.asked else None
            pulse.own += full.book.own
            self._pause = 0 if taken.count else min(4 * self._pause + 1, _LONGEST_PAUSE)
            self._again_at = pulse.step + self._pause
            self.full = None
        self._show_shares(taken, spent)
        rows = _Rows(taken, parameters, modules)
        count = taken.count
        if late and count and "loss" not in taken.row(count - 1):
            count -= 1
            self._landing.hold(rows.waiting(count))
        if count:
            own = taken.own[:count] + CALLS_NS / 1e9
            note = self._schedule.note_quiet if full is None else self._schedule.note_full
            note(taken.walls[:count], own)
            self._hand_over(rows, count)
        taken.running.pop(_SCALE, None)  # whoever ends the step asks for it
        return Running(taken.running, began)

    def _show_shares(self, taken: Taken, spent: dict[str, int]) -> None:
        """Puts the shares of the probes beside the last step."""
        self._clock.lasted(float(taken.walls.sum()), spent)
        for name, share in self._clock.shares().items() if taken.count else ():
            column = np.full(taken.count, NOWHERE)
            column[-1] = share
            taken.columns[name] = column

    def _hand_over(self, rows: _Rows, count: int) -> None:
        """All steps as columns; those whose loss is not finite one by one."""
        start = 0
        taken = rows.taken
        for bad in (*taken.bad_losses(), count):
            stop = min(bad, count)
            if start < stop:
                columns, tables = taken.part(start, stop), rows.tables(start, stop)
                self._listener.on_steps(taken.first + start, columns, *tables)
            if bad < count:
                measured = rows.measured(bad)
                self._landing.deliver(measured, bad_loss(measured.scalars.get("loss")))
            start = bad + 1


class _Rows:
    """What a stretch has written down, with the tables of full steps."""

    def __init__(self, taken: Taken, parameters: Table | None, modules: Table | None) -> None:
        self.taken = taken
        self._tables = parameters, modules

    def tables(self, start: int, stop: int) -> list[Table | None]:
        """Those of parameters and modules, of some of the steps."""
        return [
            None if table is None else Table(table.keys, table.values[start:stop])
            for table in self._tables
        ]

    def measured(self, at: int) -> Measured:
        """One step."""
        parameters, modules = (
            None if table is None else Table(table.keys, table.values[at]) for table in self._tables
        )
        full = parameters is not None
        return Measured(self.taken.first + at, full, self.taken.row(at), parameters, modules)

    def waiting(self, at: int) -> Flight | Landed:
        """One step, for which more numbers are to come."""
        measured = self.measured(at)
        if measured.full:
            return Landed(measured, None)
        flight = Flight(measured.step, False, False)
        for name, value in measured.scalars.items():
            flight.put(name, value)
        return flight
