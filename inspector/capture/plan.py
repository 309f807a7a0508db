"""What is done in the coming step: everything is measured, or the script's own numbers are kept."""

from __future__ import annotations

from inspector.capture.clock import Clock
from inspector.capture.forward import ForwardProbe
from inspector.capture.histograms import HistogramBatch
from inspector.capture.landing import Landing
from inspector.capture.listener import Listener
from inspector.capture.scaling import Scaling
from inspector.capture.schedule import Schedule
from inspector.capture.turns import HistogramTurns
from inspector.capture.watched import Watched
from inspector.commands import Clip

_SETTLED = 200
_SHORT = 0.0015  # seconds of a step in which the time machine is more than a percent
_HURRIED = 0.001  # seconds of a step in which even a glance at the batch is


class Plan:
    """The kind of the step that runs, and what follows from the controls that act on gradients.

    Attributes:
        full: modules and parameters are measured.
        quiet: nothing has to be done around the optimizer's step.
        clip, clip_threshold, zero_grad: the controls.
    """

    def __init__(
        self,
        watched: Watched,
        forward: ForwardProbe,
        turns: HistogramTurns,
        landing: Landing,
        scaling: Scaling,
        clock: Clock,
        schedule: Schedule,
        listener: Listener,
    ) -> None:
        self.full = True
        self.quiet = False
        self.clip: Clip = "off"
        self.clip_threshold = 1.0
        self.zero_grad = True
        self._watched = watched
        self._forward = forward
        self._turns = turns
        self._landing = landing
        self._scaling = scaling
        self._clock = clock
        self._schedule = schedule
        self._listener = listener

    def begin(self, step: int) -> None:
        """At the beginning of each step."""
        schedule = self._schedule
        spacing = schedule.review() if self.full else None
        if spacing is not None:
            self._listener.on_scheduled(
                "modules and parameters", spacing, f"to keep within {schedule.budget:.0%}"
            )
        was_full, self.full = self.full, schedule.is_full(step)
        wanted = self.full and step > 0 and self._turns.schedule.begins(step, schedule.bare)
        waiting = self._landing.held is not None
        if not self.full and not was_full and self.quiet and not waiting:
            return
        self._turns.batch = HistogramBatch() if wanted else None
        self._forward.take_histograms(self._turns.batch, self._turns.schedule)
        self._forward.switch(full=self.full, root=waiting or self._passes_matter)
        self.quiet = not self.full and not waiting and self._untouched

    def settle(self) -> None:
        """The finished step has got its numbers: the one that runs may be quiet after all."""
        self._forward.switch(full=False, root=self._passes_matter)
        self.quiet = not self.full and self._landing.held is None and self._untouched

    @property
    def _passes_matter(self) -> bool:
        """Whether backward passes are to be noticed in steps that are not measured fully."""
        return not self.zero_grad or not self._scaling.is_simple(self._watched.optimizers())

    @property
    def _untouched(self) -> bool:
        """Whether nobody acts on the gradients, and everything is on the CPU."""
        return (
            self._clock.step > 2  # by then a GradScaler has been found
            and self._scaling.is_simple(self._watched.optimizers())
            and self.clip == "off"
            and self.zero_grad
            and not self._watched.remote
            and not self._watched.lazy
        )

    @property
    def each_alike(self) -> bool:
        """Whether the coming steps are measured fully, each in the same way."""
        return (
            self.full
            and self._schedule.each
            and self._untouched
            and self._turns.batch is None
            and not self._landing.nonfinite.ongoing
            and self._scaling.scaler is None
        )

    @property
    def at_ease(self) -> bool:
        """Whether steps are so short that nothing more than the loss is looked at in most."""
        bare = self._schedule.bare
        return (
            self.quiet
            and not self._landing.nonfinite.ongoing
            and self._schedule.every == 0
            and self._clock.step >= _SETTLED
            and bare is not None
            and bare < _SHORT
        )

    @property
    def hurried(self) -> bool:
        """Whether steps are so short that nothing can be spared for them."""
        bare = self._schedule.bare
        return bare is not None and bare < _HURRIED
