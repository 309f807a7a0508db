"""Entering and leaving a stretch of quiet steps; see ``stretch.c`` and :mod:`quiet`."""

from __future__ import annotations

from inspector.capture.clock import Clock
from inspector.capture.flight import Flight
from inspector.capture.landing import Landing
from inspector.capture.listener import Listener
from inspector.capture.measured import Measured
from inspector.capture.nonfinite import bad_loss
from inspector.capture.quiet import CALLS_NS, MOST_NS, Taken
from inspector.capture.schedule import Schedule
from inspector.capture.stepping import OptimizerProbe

_REFUSALS = 3  # of numbers that the extension cannot take, after which it is not asked again


class Stretches:
    """Lets the extension write down quiet steps, and hands over what it has.

    Attributes:
        after_step: the script records a step's numbers after the step.
    """

    def __init__(
        self, clock: Clock, schedule: Schedule, landing: Landing, listener: Listener
    ) -> None:
        self.after_step = False
        self._refused = 0
        self._clock = clock
        self._schedule = schedule
        self._landing = landing
        self._listener = listener

    @property
    def open(self) -> bool:
        return bool(self._clock.pulse.open)

    def enter(self, until: int, probe: OptimizerProbe) -> None:
        """Leaves the steps before ``until`` to the extension."""
        pulse = self._clock.pulse
        until = min(until, self._schedule.next_full(pulse.step))
        if pulse.open or self._refused > _REFUSALS or until - pulse.step < 2:
            return
        pulse.passes, pulse.usual = probe.passes, probe.usual
        pulse.late = self.after_step
        pulse.begin(until, MOST_NS)

    def leave(self, probe: OptimizerProbe, *, refused: bool = False) -> dict[str, float]:
        """Takes over; gives what was recorded of the step that runs.

        ``refused`` says that the script records something that the extension cannot take: then
        the last step is held for it, if it waits for its numbers.
        """
        self._refused += refused
        pulse = self._clock.pulse
        late, taken = pulse.late, Taken(pulse)
        self._clock.resume(taken.since_ns)
        probe.count(pulse.passes)
        count = taken.count
        if late and refused and count and "loss" not in taken.row(count - 1):
            count -= 1
            held = Flight(taken.first + count, False, False)
            for name, value in taken.row(count).items():
                held.put(name, value)
            self._landing.hold(held)
        if count:
            own = float(taken.own[:count].mean()) + CALLS_NS / 1e9
            self._schedule.note_quiet(taken.columns["step_time"][:count], own)
            self._hand_over(taken, count)
        return taken.running

    def _hand_over(self, taken: Taken, count: int) -> None:
        """All steps as columns; those whose loss is not finite one by one."""
        start = 0
        for bad in (*taken.bad_losses(), count):
            stop = min(bad, count)
            if start < stop:
                self._listener.on_quiet(taken.first + start, taken.part(start, stop))
            if bad < count:
                row = taken.row(bad)
                measured = Measured(taken.first + bad, False, row)
                self._landing.deliver(measured, bad_loss(row.get("loss")))
            start = bad + 1
