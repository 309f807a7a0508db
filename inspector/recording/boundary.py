"""Between two steps: commands are obeyed, training is held, and what is due is done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from inspector.capture.step_snapshots import StepSnapshots
from inspector.capture.structure import StructureProbe
from inspector.commands import INTERVENTIONS, OF_OPTIMIZERS
from inspector.interventions.apply import Interventions
from inspector.recording.inbox import Inbox
from inspector.store.agreement import Agreement

if TYPE_CHECKING:
    from inspector.recorder import Recorder

_BEAT_SECONDS = 0.5
_GRAPH_STEP = 1  # of each run: the first has lazy parameters, and what is done only once
_NO_LOSS = 5  # a step; a script that has not recorded one by then mostly records none


class Boundary:
    """What a recorder does between two steps, in the training thread.

    Args:
        first_step: the step that the run began with, when it goes on from an earlier one.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        inbox: Inbox,
        structure: StructureProbe,
        snapshots: StepSnapshots,
        interventions: Interventions,
        first_step: int,
    ) -> None:
        self._recorder = recorder
        self._steering = recorder.steering
        self._observer = recorder.observer
        self._timemachine = recorder.timemachine
        self._pulse = recorder.observer.clock.pulse
        self._inbox = inbox
        self._structure = structure
        self._snapshots = snapshots
        self._interventions = interventions
        self._first_step = first_step
        self._next_beat = 0.0

    def attend(self) -> None:
        """Ends when training may go on. A fault here is ours, and must not stop the script."""
        try:
            self._attend()
            self.hand_over()
        except Exception as error:
            self._recorder.on_failed("boundary", error)

    def hand_over(self) -> None:
        """Leaves the coming steps to the capture, up to the next that has to be attended."""
        if not self._observer.ordinary:
            return
        pulse, steering = self._pulse, self._steering
        pulse.alarm = 0  # before looking: what comes later sets it again
        awaited = self._inbox.waiting or steering.pace.engaged or steering.graph_wanted
        if awaited or self._snapshots.armed or self._recorder.closed:
            return
        until = self._first_step + self._structure.quiet_until(pulse.step - self._first_step)
        if (due := self._interventions.due) is not None:
            until = min(until, due)
        if every := steering.controls.graph_every:
            until = min(until, (pulse.step // every + 1) * every)
        pulse.calm = self._timemachine.asleep
        pulse.witness = self._timemachine.witness
        self._observer.hand_over(until)

    def beat(self, state: str) -> None:
        """A sign of life."""
        self._next_beat = time.monotonic() + _BEAT_SECONDS
        self._recorder.heartbeat(state)

    def _attend(self) -> None:
        steering, step = self._steering, self._pulse.step
        steering.step_done()
        if self._structure.on_step(step - 1 - self._first_step):
            self._recorder.store_structure()
        if self._inbox.waiting or steering.pace.engaged or self._snapshots.armed:
            self._snapshots.finish()
            if steering.pace.step_done():
                steering.pause("steps_done")
            self._take_commands()
            self._hold()
            while (agreement := self._inbox.agreement) and not agreement.leave(step):
                self._take_commands()
                self._hold()
        self._interventions.at_boundary()
        calm = self._observer.plan.at_ease and steering.controls.on_nonfinite == "continue"
        self._timemachine.rest(calm, glancing=not self._observer.plan.hurried)
        every = steering.controls.graph_every
        if (wanted := steering.backward_wanted) is not None:
            steering.backward_wanted = None
            self._snapshots.arm_backward(wanted)
        if steering.graph_wanted or (every and step % every == 0):
            steering.graph_wanted = False
            self._snapshots.arm_graph()
        self._first_graph(step - self._first_step)
        self._live_on()

    def _first_graph(self, done: int) -> None:
        """Every run has a graph to look at, also when nobody was there to ask for one."""
        if done == _GRAPH_STEP:
            self._snapshots.arm_graph(asked=False)
        elif done >= _NO_LOSS:
            self._snapshots.give_up_graph()

    def _take_commands(self) -> None:
        if self._inbox.agreement is not None:
            self._agree(self._inbox.agreement)
        while self._inbox.commands:
            command = self._inbox.commands.popleft()
            intervenes = command.name in INTERVENTIONS
            (self._interventions if intervenes else self._steering).apply(command)
            if intervenes or command.name == "set":
                self._structure.look_again()
            if intervenes or command.control in OF_OPTIMIZERS:
                self._recorder.describe_optimizers()

    def _agree(self, agreement: Agreement) -> None:
        """Takes what all ranks do at this boundary; one that waits goes on to a later one."""
        for heard in agreement.due(self._pulse.step, beat=self._live_on):
            if heard.refusal:
                self._steering.refuse(heard.command, heard.refusal)
            else:
                self._inbox.commands.append(heard.command)
        self._observer.clock.restart()
        if not self._inbox.commands and self._steering.pace.paused and agreement.releases:
            self._steering.release()

    def _hold(self) -> None:
        """Waits while training is paused or slowed down; commands are heard all the time."""
        pace = self._steering.pace
        held = False
        while not self._recorder.closed and (pace.paused or pace.wait() > 0):
            held = True
            self._inbox.wait(_BEAT_SECONDS if pace.paused else min(pace.wait(), 0.1))
            self._observer.receive()
            self._take_commands()
            if pace.paused or time.monotonic() >= self._next_beat:
                self.beat("paused" if pace.paused else "running")
        pace.began()
        if held:
            self._observer.clock.restart()
            self.beat("running")

    def _live_on(self) -> None:
        """A sign of life, if one is due."""
        if time.monotonic() >= self._next_beat:
            self.beat("paused" if self._steering.pace.paused else "running")
