"""The numbers of the step that runs: what the script records of it, and what its end adds."""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.capture.clock import Clock
from inspector.capture.flight import Flight
from inspector.capture.forward import ForwardProbe
from inspector.capture.gathering import gather
from inspector.capture.landing import Landing
from inspector.capture.listener import Listener
from inspector.capture.measured import Measured
from inspector.capture.nonfinite import bad_loss
from inspector.capture.optimizer_groups import OtherGroups, Places
from inspector.capture.plain import Landed
from inspector.capture.readings import rates
from inspector.capture.schedule import Schedule
from inspector.capture.stretches import Stretches
from inspector.capture.transfer import Scalar
from inspector.capture.turns import HistogramTurns
from inspector.capture.watched import Watched


class StepNumbers:
    """Keeps what is recorded until the step is over, and sends it with what was measured.

    Attributes:
        scalars: what the script has recorded of the step that runs.
        after_skip: what comes now belongs to a try that has ended without a step.
        at_hand: nothing of the last full step was on a device.
    """

    def __init__(
        self,
        watched: Watched,
        forward: ForwardProbe,
        turns: HistogramTurns,
        landing: Landing,
        stretches: Stretches,
        clock: Clock,
        schedule: Schedule,
        listener: Listener,
    ) -> None:
        self.scalars: dict[str, Scalar] = {}
        self.after_skip = False
        self.at_hand = False
        self._tried: dict[str, Scalar] = {}
        self._other_groups = OtherGroups()
        self._watched = watched
        self._forward = forward
        self._turns = turns
        self._landing = landing
        self._stretches = stretches
        self._clock = clock
        self._schedule = schedule
        self._listener = listener

    def record(self, scalars: dict[str, Scalar]) -> bool:
        """Adds to the step that runs, or to the one just finished if nothing came since.

        True when that one was waited for, and is complete now.
        """
        kept: dict[str, Scalar] = {}
        landing = self._landing
        for name, value in scalars.items():
            if isinstance(value, Tensor):
                if self._forward.deaf:
                    self._forward.watch_boundary(value)
                kept[name] = value.item() if value.is_cpu else value.detach().reshape(())
            else:
                kept[name] = value
        flight = landing.held
        if flight is None and self.after_skip:
            self._tried.update(kept)
            if "loss" in kept:
                self._listener.on_lost_loss(float(kept["loss"]))
            return False
        if "loss" in kept:
            self._stretches.after_step = flight is not None
        if flight is None:
            self.scalars.update(kept)
            return False
        for name, value in kept.items():
            flight.put(name, value)
        landing.release()
        return True

    @property
    def incomplete(self) -> bool:
        """Whether the step's numbers are still to come, as far as the last steps tell."""
        late = self._stretches.after_step and "loss" not in self.scalars
        return late or not self.scalars

    def other_groups(self) -> Places:
        """The groups whose learning rates the extension is to read."""
        return self._other_groups.places(self._watched.optimizers())

    # ------------------------------------------------------------ the end of a step

    def end(self, optimizer: torch.optim.Optimizer, *, full: bool) -> None:
        """Everything that the probes have measured; waits for what the script records late."""
        clock, ordinary = self._clock, self._turns.batch is None
        measured = self._watched.probes
        assert measured is not None
        flight = gather(
            clock.step,
            optimizer,
            measured,
            self._forward,
            full=full,
            histograms=self._turns.end(measured.each, measured.parameters.names),
        )
        for name, value in self._other_groups.read(self._watched.optimizers(), full=full).items():
            flight.put(name, value)
        self.at_hand = isinstance(flight, Landed)
        forward, gradient = self._forward.spent()
        clock.charge("forward", forward)
        clock.charge("gradients", gradient)
        wall, own = clock.tick()
        if ordinary:
            self._schedule.note(full, wall, own)
        if wall:
            flight.put("step_time", wall)
            flight.put("overhead", own / wall)
            for name, share in clock.shares().items():
                flight.put(name, share)
        if full and self._forward.end_discovery():
            self._listener.on_described()
        incomplete, self._tried = self.incomplete, {}
        for name, value in self.scalars.items():
            flight.put(name, value)
        self.scalars = {}
        if incomplete:
            self._landing.hold(flight)
        else:
            self._landing.send(flight)

    def end_quietly(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing but the script's own numbers and what the optimizer steps with."""
        probe, clock = self._watched.each[0], self._clock
        probe.after_step(False)
        step = clock.step
        wall, own = clock.tick()
        self._schedule.note(False, wall, own)
        scalars = self.scalars
        self.scalars, self._tried = {}, {}
        others = self._other_groups.read(self._watched.optimizers(), full=False)
        found = {**rates(optimizer.param_groups[0]), **others}
        if any(isinstance(value, Tensor) for value in (*found.values(), *scalars.values())):
            flight = Flight(step, False, True)
            for name, value in {**found, **scalars}.items():
                flight.put(name, value)
            self._landing.send(flight)
            return
        found.update(scalars)
        if probe.scale is not None:
            found["grad_scale"] = float(probe.scale)
        if probe.passes:
            found["backward_passes"] = float(probe.passes)
        if wall:
            found["step_time"], found["overhead"] = wall, own / wall
            found.update(clock.shares())
        self._landing.deliver(Measured(step, False, found), bad_loss(scalars.get("loss")))  # type: ignore[arg-type]

    def send_rest(self) -> None:
        """What was recorded since the last step, of one that has not come to its end."""
        if rest := {**self._tried, **self.scalars}:
            flight = Flight(self._clock.step, False, self._watched.remote)
            for name, value in rest.items():
                flight.put(name, value)
            self.scalars, self._tried = {}, {}
            self._landing.send(flight)
