"""Keeps the checkpoints of a run: the last, the best, every so many steps, and on demand.

A checkpoint is the state between two steps: after the schedule, before any validation. Whoever
goes on from it does what the run itself did next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inspector.commands import Command
from inspector.errors import CommandError, StoreError
from inspector.events import CheckpointFailed, CheckpointSaved, Notice, RunContinued
from inspector.training import checkpoints
from inspector.training.checkpoints import FORMAT, State, plain
from inspector.training.order import again, beginning, doubts
from inspector.training.random_numbers import random_numbers, set_random_numbers
from inspector.training.snapshots import beside, snapshot, state_then
from inspector.training.state import Part, restore, state_of
from inspector.training.task import Task

if TYPE_CHECKING:
    from inspector.watching import Watch

_LAST_SECONDS = 30.0
_BEST_SECONDS = 10.0
"""Least time between two writes of a file, so that short epochs are not spent on the disk."""


@dataclass(slots=True)
class Position:
    """How far training is.

    Attributes:
        step: optimizer steps begun; more than are completed where loss scaling left some out.
        epoch: passes over the training part that are complete.
        batch: batches taken in this pass.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0


class Keeper:
    """One for each run; everything happens in the training thread, between two steps.

    Args:
        at: how far training is; the loop counts.
        parts: what else has a state, by name: schedule, loss scaling, early stopping.
    """

    def __init__(self, task: Task, watch: Watch, at: Position, parts: Mapping[str, Part]) -> None:
        self._task, self._watch, self._at, self._parts = task, watch, at, parts
        self._first = watch.step
        self._begun: dict[str, Any] = {}
        self._rest: State | None = None
        self._marked: dict[str, Any] | None = None
        self._good = watch.step, dataclasses.replace(at)
        self._good_random = torch.get_rng_state()
        self._best: dict[str, float | int] | None = None
        self._val_loss: float | None = None
        self._pending: State | None = None
        self._written: dict[str, float] = {}
        self._told_full = self._told_bad = False
        watch.on_checkpoint(self._asked)

    # ------------------------------------------------------------ going on

    def resume(self) -> None:
        """Takes up the checkpoint that the task goes on from, if any."""
        continued = self._task.resumed
        if continued is None:
            return
        state = continued.state
        notes = restore(self._task, state, self._parts) + doubts(self._task.train_loader)
        self._move(Position(**state["at"]))
        self._rest = {key: state[key] for key in ("begun", "random")}
        self._best, self._val_loss = state["best"], state["val_loss"]
        self._watch.event(
            RunContinued(
                parent=continued.parent or str(continued.path),
                at=continued.step,
                changes=continued.changes,
                notes=[*notes, *state["notes"], *continued.notes],
            )
        )
        for name, value in continued.controls.items():
            self._watch.apply(Command(name="set", control=name, value=value))
        state.clear()  # it is as large as the model and its optimizer

    def batches(self) -> Iterator[Any]:
        """The batches of an epoch; of the one that was interrupted, those that were left."""
        loader, rest = self._task.train_loader, self._rest
        self._marked = self._rest = None
        if rest is None:
            self._begun = beginning(loader)
            batches: Iterator[Any] = iter(loader)
        else:
            self._begun = rest["begun"]
            batches = again(loader, self._begun, self._at.batch)
            set_random_numbers(rest["random"])
        self._remember()
        return batches

    # ------------------------------------------------------------ called by the loop

    def between(self) -> None:
        """Before the batches of a step are drawn: the time machine may copy the state."""
        self._watch.timemachine.keep(self._beside)

    def stepped(self) -> None:
        """After each step."""
        every, before = self._task.config.checkpoint_every, self._good[0]
        self._remember()
        if every and self._watch.step % every == 0 and self._watch.step > before:
            self.save("every")

    def mark(self) -> None:
        """Before validation: until the next batch, a checkpoint is the state of this moment."""
        groups = self._task.optimizer.state_dict()["param_groups"]
        self._marked = {
            "at": dataclasses.asdict(self._at),
            "random": random_numbers(),
            "parts": {
                name: plain(part.state_dict(), name, []) for name, part in self._parts.items()
            },
            "param_groups": plain(groups, "optimizer", []),
        }

    def validated(self, val_loss: float | None) -> None:
        """After validation: keeps the best state so far, and the last one now and then."""
        self._val_loss = val_loss
        if val_loss is not None and (self._best is None or val_loss < self._best["val_loss"]):
            self._best = {"val_loss": val_loss, "step": self._watch.step}
            self._pending = self._state("best")
        if self._pending is not None and self._due("best", _BEST_SECONDS):
            self._flush()
        if self._due("last", _LAST_SECONDS):
            self.save("last")

    def finish(self) -> None:
        """After the last step, or when the run was asked to stop."""
        self._flush()
        self.save("last")

    def failed(self) -> None:
        """After an exception in the middle of a step: the state before that step."""
        step, position = self._good
        self._flush()
        if step != self._watch.step or step == self._first:
            return
        self._move(position)
        state = self._state("last")
        if self._marked is None:
            state["random"]["torch"] = self._good_random
            if any(True for _ in self._task.model.buffers()):
                state["notes"] = [
                    "It was saved after an error in the middle of a step: buffers may be ahead."
                ]
        with contextlib.suppress(CommandError):
            self._write("last", state)

    def save(self, reason: str) -> str:
        """Writes a checkpoint; its path relative to the run.

        Raises:
            CommandError: it was asked for by a command and could not be written.
        """
        return self._write(reason, self._state(reason))

    # ------------------------------------------------------------ small parts

    def _remember(self) -> None:
        self._good = self._watch.step, dataclasses.replace(self._at)
        self._good_random = torch.get_rng_state()

    def _move(self, to: Position) -> None:
        self._at.step, self._at.epoch, self._at.batch = to.step, to.epoch, to.batch

    def _asked(self, wanted: int | str | None) -> str:
        """Writes the checkpoint of a command: the present state, or one of an earlier step."""
        if wanted is None:
            return self.save("command")
        copied = snapshot(self._watch.timemachine.history, wanted)
        return self._write("snapshot", self._whole("snapshot", state_then(self._task, copied)))

    def _beside(self) -> State:
        gradients = not self._watch.controls.zero_grad
        return {**beside(self._task, self._parts, gradients=gradients), **self._moment()}

    def _state(self, reason: str) -> State:
        marked = self._marked
        state = state_of(self._task, self._parts, gradients=not self._watch.controls.zero_grad)
        state |= self._moment()
        if marked is None:
            state["random"] = random_numbers()
        else:
            state["parts"], state["random"] = dict(marked["parts"]), dict(marked["random"])
            state["optimizer"]["param_groups"] = marked["param_groups"]
            state["at"] = marked["at"]
        return self._whole(reason, state)

    def _moment(self) -> State:
        """Where training is, and what it has learned of itself so far."""
        watch = self._watch
        return {
            "step": watch.step,
            "at": dataclasses.asdict(self._at),
            "begun": self._begun,
            "best": self._best,
            "val_loss": self._val_loss,
            "notes": [f"A fault was in the model: {name}." for name in watch.faults],
            "controls": watch.controls,
        }

    def _whole(self, reason: str, state: State) -> State:
        """A checkpoint: a state, and what stays the same in all of a run's."""
        task, watch = self._task, self._watch
        config = dataclasses.replace(task.config, controls=state.pop("controls"))
        return {
            "format": FORMAT,
            **state,
            "config": plain(config.to_dict(), "config", []),
            "samples": task.samples,
            "sources": dict(task.sources),
            "threads": torch.get_num_threads(),
            "run": watch.run_name,
            "wall": time.time(),
            "reason": reason,
            "torch": str(torch.__version__),
        }

    def _due(self, reason: str, seconds: float) -> bool:
        return time.monotonic() - self._written.setdefault(reason, time.monotonic()) >= seconds

    def _flush(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._write("best", pending)

    def _write(self, reason: str, state: State) -> str:
        relative = checkpoints.FOLDER / checkpoints.file_name(reason, state["step"])
        path = self._watch.run_path / relative
        asked = reason in ("command", "snapshot")
        if not asked and path.exists() and not _finite(state["model"]):
            self._keep_good(path, state["step"])
            return str(relative)
        self._written[reason] = time.monotonic()
        try:
            size = checkpoints.write(path, state)
            if reason == "last":
                _link(path, self._watch.run_path / "blobs" / "last.pt")
        except (StoreError, OSError) as error:
            if not self._told_full:
                self._told_full = True
                self._watch.event(CheckpointFailed(path=str(relative), error=str(error)))
            if asked:
                raise CommandError(f"The checkpoint could not be written: {error}.") from error
            return str(relative)
        self._told_full = False
        self._watch.event(
            CheckpointSaved(
                path=str(relative),
                at=state["step"],
                reason=reason,
                val_loss=state["val_loss"],
                size=size,
            )
        )
        return str(relative)

    def _keep_good(self, path: Path, step: int) -> None:
        if not self._told_bad:
            self._told_bad = True
            self._watch.event(
                Notice(
                    message=f"Weights are not finite at step {step}: {path.name} stays as it was."
                )
            )


def _finite(weights: dict[str, Any]) -> bool:
    return all(
        bool(torch.isfinite(tensor).all())
        for tensor in weights.values()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    )


def _link(path: Path, other: Path) -> None:
    """``blobs/last.pt``, where older versions had it: the same file, or a copy of it."""
    part = other.with_name(other.name + ".part")
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, part)
    part.replace(other)
