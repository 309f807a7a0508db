"""The training loop: plain PyTorch, steered and recorded by ``watch`` alone."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from inspector.commands import Command
from inspector.errors import DataError
from inspector.events import EarlyStopped, EpochFinished, Notice
from inspector.numerals import short
from inspector.training.keeping import Keeper, Position
from inspector.training.schedules import Schedule, resolve
from inspector.training.state import Part
from inspector.training.stopping import EarlyStopping
from inspector.training.task import Task
from inspector.training.update import Timed, Update
from inspector.training.validation import mean_scores, of_epoch

if TYPE_CHECKING:
    from inspector.watching import Watch


def train(task: Task, watch: Watch) -> None:
    """Trains to the end, or until ``watch.should_stop``; the last state is kept in any case.

    Raises:
        DataError: the loader gives no batch.
        Exception: whatever the model, the data or the loss raises.
    """
    loop = Loop(task, watch)
    try:
        loop.run()
    except (Exception, SystemExit):
        loop.keeper.failed()
        raise
    loop.keeper.finish()
    if loop.stopped_early:
        watch.close("early_stopped")


class Loop:
    """One training, and what of it is neither in the model nor in the optimizer.

    Attributes:
        accumulate: batches of which each step's gradients are summed; the last step of an epoch
            may have fewer.
        stopped_early: training has ended since the validation loss no longer fell.
        keeper: keeps the checkpoints, and takes one up where the task goes on from it.
    """

    def __init__(self, task: Task, watch: Watch) -> None:
        self.task, self.watch = task, watch
        self.at = Position()
        self.accumulate = watch.controls.accumulate
        self.schedule = Schedule(task.optimizer, self._resolved(watch.controls.schedule))
        self.stopping = EarlyStopping(task.config.early_stopping)
        self.stopped_early = False
        self._changed = watch.step
        self._validated = -1  # what is gone on from may stand right before a validation
        self._update = Update(task, watch)
        watch.conducted_by(self)
        parts: dict[str, Part] = {
            "schedule": self.schedule,
            "loss scaling": task.precision,
            "early stopping": self.stopping,
        }
        self.keeper = Keeper(task, watch, self.at, parts)

    def run(self) -> None:
        """Trains until the steps or epochs are done, or somebody or something stops it."""
        watch, at, limit = self.watch, self.at, self.task.config.steps
        for note in self.task.notes:
            watch.event(Notice(message=note))
        self.task.model.train()
        self.keeper.resume()
        while self._more_epochs():
            for batches in self._groups():
                at.step += 1
                self._update(batches, self._progress())
                self.schedule.after_step()
                self.keeper.stepped()
                self._change()
                watch.boundary()
                if watch.should_stop or at.step == limit:
                    break
            if watch.should_stop:
                break
            if at.batch == 0:
                raise DataError(
                    f"The loader gave no batch in epoch {at.epoch}; was it a generator that is "
                    "used up?"
                )
            self._end_epoch()

    def follow(self, name: str, value: Any) -> tuple[Any, str]:
        """Puts ``accumulate`` or ``schedule`` in force before the next step."""
        if name == "accumulate":
            self.accumulate = value
            left = self._steps_left()
            self.watch.expect(self.at.step + left)
            return value, f"{left} steps are left"
        resolved = self._resolved(value, ongoing=True)
        self.schedule.switch(resolved)
        lr = float(self.task.optimizer.param_groups[0]["lr"])
        return resolved, f"from {short(lr)}, with {self._steps_left()} steps left"

    def loss_of(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch by a copy of the model; nothing is recorded."""
        with self.task.precision.autocast():
            return self.task.step(model, batch)[0]

    def _change(self) -> None:
        """Applies what the configuration wants changed at this step."""
        step, before = self.watch.step, self._changed
        self._changed = step
        for change in self.task.config.by_hand:
            if change["step"] == step != before:  # a step that was skipped is none
                control, value = change["control"], change["value"]
                if control == "stop":
                    self.watch.apply(Command(name="stop"))
                else:
                    target = change.get("target", "")
                    self.watch.apply(
                        Command(name="set", control=control, value=value, target=target)
                    )

    def _groups(self) -> Iterator[list[Timed]]:
        """The batches of each step of this epoch."""
        rest = timed(self.keeper.batches())
        while True:
            self.keeper.between()
            if not (group := list(itertools.islice(rest, self.accumulate))):
                return
            self.at.batch += len(group)
            yield group

    def _end_epoch(self) -> None:
        """Validates; whatever goes by epochs goes on."""
        task, watch, at = self.task, self.watch, self.at
        cut_short = at.step == task.config.steps and at.batch != task.batches_per_epoch
        self.keeper.mark()
        scores = mean_scores(task, task.val_loader, "val", watch)
        val_loss = scores.get("val_loss")
        self.keeper.validated(val_loss)
        self._reschedule(val_loss)
        self.stopped_early = self.stopping.update(at.epoch, val_loss)
        at.epoch, at.batch = at.epoch + 1, 0
        # All steps of an epoch may have been skipped: a step is validated once.
        told = scores if watch.step != self._validated else {}
        self._validated = watch.step
        if not self._more_epochs():
            told = told | mean_scores(task, task.test_loader, "test", watch)
        if told:
            watch.validation(**told)
        if not cut_short:
            watch.event(EpochFinished(epoch=at.epoch - 1, **of_epoch(scores)))
        if self.stopped_early:
            best, when = self.stopping.best, self.stopping.best_epoch
            watch.event(EarlyStopped(patience=self.stopping.patience, best=best, epoch=when))

    def _more_epochs(self) -> bool:
        config, at = self.task.config, self.at
        if self.stopped_early:
            return False
        return at.step < config.steps if config.steps else at.epoch < config.epochs

    def _reschedule(self, val_loss: float | None) -> None:
        group = self.task.optimizer.param_groups[0]
        before = float(group["lr"])
        self.schedule.after_epoch(val_loss)
        if self.schedule.resolved["name"] == "reduce_on_plateau" and float(group["lr"]) != before:
            self.watch.event(
                Notice(
                    message=f"Learning rate {short(before)} → {short(float(group['lr']))}: the "
                    "validation loss has not fallen for more than "
                    f"{self.schedule.resolved['patience']} epochs."
                )
            )

    def _resolved(self, schedule: dict[str, Any] | None, *, ongoing: bool = False) -> Any:
        per_epoch = math.ceil(self.task.batches_per_epoch / self.accumulate)
        lr = float(self.task.optimizer.param_groups[0]["lr"])
        steps = self._steps_left()
        return resolve(schedule, lr, steps=steps, steps_per_epoch=per_epoch, ongoing=ongoing)

    def _steps_left(self) -> int:
        """Optimizer steps from here to the end, unless something changes."""
        config, at, batches = self.task.config, self.at, self.task.batches_per_epoch
        if config.steps:
            return config.steps - at.step
        rest = math.ceil((batches - at.batch) / self.accumulate)
        return rest + (config.epochs - at.epoch - 1) * math.ceil(batches / self.accumulate)

    def _progress(self) -> float:
        """Passes over the training part completed after this step, as far as they are known."""
        batches = self.task.batches_per_epoch
        return self.at.epoch + (self.at.batch / batches if batches else 0.0)


def timed(batches: Iterable[Any]) -> Iterator[Timed]:
    """Batches, each with the seconds that were waited for it."""
    rest = iter(batches)
    while True:
        asked = time.perf_counter()
        try:
            batch = next(rest)
        except StopIteration:
            return
        yield batch, time.perf_counter() - asked
