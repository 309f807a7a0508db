"""What is done when a try ends without an optimizer step: events, and the search for its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.capture.nonfinite import Onset, bad_loss
from inspector.capture.skips import Skipped, Skips, worth
from inspector.events import StepSkipped

if TYPE_CHECKING:
    from inspector.recorder import Recorder


class SkippedSteps:
    """Tells of skipped steps on behalf of a recorder.

    Attributes:
        skips: how many there were, and whether they can end well.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.skips = Skips()
        self._recorder = recorder
        self._reason = ""

    def heard(self, skipped: Skipped) -> None:
        """A try is over; never raises."""
        try:
            self.add(skipped)
        except Exception as error:
            if not self.skips.failed:
                self._recorder.on_failed("skipped steps", error)
            self.skips.failed = True

    def add(self, skipped: Skipped) -> None:
        """Tells of a skipped step, and whether this is more than a GradScaler at work."""
        skips = self.skips
        due, known = skips.add(skipped), skips.lost
        self._reason = skipped.reason
        onset = skips.examine(skipped, self._recorder.observer.parameters)
        if due or (skips.lost and not known):
            self._tell(skipped)
        if onset is not None:
            self._lost(skipped.step, onset)
        if not skipped.counted:
            self._recorder.timemachine.pass_over(over=skipped.over)

    def recorded(self, loss: float) -> None:
        """The loss came after the try; only the first in a row has something to say."""
        skips = self.skips
        skips.loss = loss
        if (onset := bad_loss(loss)) is not None and not skips.lost:
            skips.lost = True
            self._tell(Skipped(self._recorder.step, self._reason))
            self._lost(self._recorder.step, onset)

    def made(self, step: int) -> None:
        """A step was made."""
        if self.skips.made(step):
            self._recorder.timemachine.recovered()

    def close(self) -> None:
        """Tells how many there have been since the last event."""
        if self.skips.total > self.skips.told:
            self._tell(Skipped(self._recorder.step, self._reason))

    def _tell(self, skipped: Skipped) -> None:
        skips = self.skips
        skips.told = skips.total
        self._recorder.writer.event(
            skipped.step,
            StepSkipped(
                reason=skipped.reason,
                in_a_row=max(skips.in_a_row, 1),
                total=skips.total,
                scale=skipped.scale,
                loss=worth(skips.loss),
            ),
        )

    def _lost(self, step: int, onset: Onset) -> None:
        if not self._recorder.timemachine.lost(step, onset):
            self._recorder.report(step, onset)
