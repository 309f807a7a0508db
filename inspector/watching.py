"""``watch()``: one line that makes any training loop visible and steerable."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from inspector.capture.attach import Attachment
from inspector.capture.freezing import inside
from inspector.capture.modes import find
from inspector.capture.settings import current
from inspector.capture.steering import OF_THE_LOOP, Conductor
from inspector.capture.waiting import Batches, Waiting
from inspector.capture.wrappers import all_of, called_in, lead_through, scaler_of, unwrapped
from inspector.commands import Command, Controls
from inspector.errors import CommandError
from inspector.events import Event, RunFailed, RunFinished
from inspector.frames import user_frames
from inspector.recorder import Recorder
from inspector.store.layout import create_run
from inspector.timemachine.machine import TimeMachine

T = TypeVar("T")


class Watch:
    """The handle of a watched training; a context manager.

    Leaving a ``with`` block by an exception ends the run as failed; the exception goes on.
    """

    def __init__(self, recorder: Recorder, path: Path, attachment: Attachment) -> None:
        self._recorder = recorder
        self._attachment = attachment
        self._take = recorder.take
        self._waiting = Waiting(lambda: recorder.step)
        self.run_path = path
        atexit.register(self._at_exit)  # after the writer's, so that it is called before

    @property
    def run_name(self) -> str:
        """Name of the run: that of its directory."""
        return self.run_path.name

    @property
    def step(self) -> int:
        """The optimizer step that runs now, 0-based; as many are completed."""
        return self._recorder.step

    @property
    def controls(self) -> Controls:
        """What is in force now."""
        return self._recorder.steering.controls

    @property
    def should_stop(self) -> bool:
        """True after a stop command: leave the loop, please."""
        steering = self._recorder.steering
        steering.heeds_stop = True
        return steering.pace.stopped

    def record(
        self, *, loss: Tensor | float | None = None, **scalars: Tensor | float | int
    ) -> None:
        """Adds numbers to the step: before ``optimizer.step()`` or right after it.

        Tensors must hold one element; they are not waited for. ``epoch`` (passes completed, may
        be fractional) and ``samples`` (in the batch) stay in force until they are given again.
        Give the loss before ``backward()`` where you can: then its autograd graph can be shown
        with gradients.
        """
        if self._waiting.seconds is not None:
            scalars.setdefault("data_seconds", self._waiting.seconds)
        if not self._take(loss, scalars) and not self._recorder.closed:
            self._recorder.record(loss, scalars)

    def batches(self, loader: Iterable[T]) -> Batches[T]:
        """The loader's batches as they are, for the ``for`` of your loop.

        What a step waited for its batches goes with the next :meth:`record` as ``data_seconds``.
        """
        return Batches(loader, self._waiting)

    def amend(self, **scalars: Tensor | float) -> None:
        """Replaces numbers of this step that were recorded before, such as by their mean."""
        if not self._take(None, scalars) and not self._recorder.closed:
            self._recorder.amend(scalars)

    def conducted_by(self, loop: Conductor) -> None:
        """Lets ``loop`` follow the controls that only the loop itself can put in force."""
        self._recorder.steering.conductor = loop

    def boundary(self) -> None:
        """Called by a loop that conducts when a step and all that belongs to it is done.

        Commands are applied here, pauses wait here. For any other loop it is the end of
        ``optimizer.step()``.
        """
        self._recorder.boundary()

    def on_checkpoint(self, save: Callable[[Any], str]) -> None:
        """Lets ``save`` write the checkpoints that commands ask for; it gives their path.

        Args:
            save: is called with the command's value; raises CommandError to refuse.
        """
        self._recorder.steering.saver = save

    @property
    def timemachine(self) -> TimeMachine:
        """The copies of the last steps' state, for a loop that can go on from them."""
        return self._recorder.timemachine

    def apply(self, command: Command) -> None:
        """Applies a command now, which must be between two steps; an event answers it."""
        self._recorder.steering.apply(command)

    @property
    def faults(self) -> list[str]:
        """Titles of the faults that were injected and are in force."""
        return self._recorder.faults

    def stop(self) -> None:
        """What a stop command does, from any thread of this process: it needs no disk."""
        self._recorder.steering.pace.stop()

    def expect(self, total_steps: int) -> None:
        """Changes how many steps the run will have, for the progress bar."""
        self._recorder.expect(total_steps)

    def validation(self, **scalars: Tensor | float) -> None:
        """Records numbers of a pass over held-out data, such as ``val_loss``."""
        if not self._recorder.closed:
            self._recorder.validation({name: float(value) for name, value in scalars.items()})

    def event(self, event: Event) -> None:
        """Stores an event at the present step."""
        if not self._recorder.closed:
            self._recorder.event(event)

    def document(self, kind: str, content: dict[str, Any]) -> None:
        """Stores a JSON document at the present step, such as a confusion matrix."""
        if not self._recorder.closed:
            self._recorder.writer.document(kind, self.step, content)

    def pause(self, reason: str = "command") -> None:
        """Holds training at the end of this step, until it is resumed or stopped."""
        self._recorder.pause(reason)

    def failed(self, error: BaseException | RunFailed, *, phase: str = "") -> None:
        """Ends the run as failed; only the user's own frames are kept apart from the traceback."""
        self._end(error if isinstance(error, RunFailed) else _failure(error, phase))

    def close(self, reason: str = "") -> None:
        """Ends the run: ``completed``, ``stopped``, or ``closed``; a second call does nothing.

        Model, optimizer and process-wide switches are then as they were found.
        """
        if not reason:
            reason = "stopped" if self._recorder.steering.pace.stopped else "completed"
        self._end(RunFinished(reason=reason))

    def _end(self, last: Event) -> None:
        atexit.unregister(self._at_exit)
        self._attachment.remove()
        self._recorder.close(last)

    def _at_exit(self) -> None:
        """The script has ended without closing, perhaps by an exception."""
        error = getattr(sys, "last_value", None)
        if isinstance(error, Exception):
            self.failed(error)
        else:
            self.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("stopped")
        else:
            self.failed(error)


def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    run_dir: str | Path = "runs",
    name: str | None = None,
    every: int = 0,
    loss_fn: Any = None,
    loader: Iterable[Any] | None = None,
    scaler: Any = None,
    kind: str = "watched",
    config: dict[str, Any] | None = None,
    controls: Controls | None = None,
    total_steps: int | None = None,
    first_step: int = 0,
    lineage: dict[str, Any] | None = None,
) -> Watch:
    """Records a training as a run under ``run_dir`` and lets it be steered from outside.

    A step is a completed ``optimizer.step()``; with several optimizers, one of the first.

    Args:
        model: the module whose modules and parameters are shown. Of Fabric's wrapper, and of a
            LightningModule with one network and no ``forward``, it is the one inside.
        optimizer: what steps its parameters; one that Lightning or accelerate has wrapped will do.
        name: name of the run; made unique. The script's name and the time when left out.
        every: measure modules and parameters every so many steps; 0 measures as often as keeps
            the cost of watching within 3 %.
        loss_fn, loader: what computes the loss and yields the batches, for the diagnosis.
        scaler: the GradScaler, so that gradients are unscaled from the first step on. Without
            it, it is found in accelerate's optimizer, or at the first step.
        kind, config: kept in ``run.json``.
        controls: what is in force at the first step.
        total_steps: how many steps there will be, for the progress bar.
        first_step: number of the first step, where training goes on from a checkpoint.
        lineage: kept in ``run.json``: the run and step that this one goes on from.

    Raises:
        StoreError: the run directory cannot be written.
        InspectorError: ``optimizer`` is empty, not an optimizer, or hides the one that steps.
        CommandError: ``controls`` name a module that is not there, or what only a loop of the
            inspector's own can do.
    """
    model, given = called_in(model), all_of(optimizer)
    optimizers = [unwrapped(one) for one in given]
    if scaler is None:
        scaler = next((found for one in given if (found := scaler_of(one)) is not None), None)
    _check(controls or Controls(), model, built_in=kind == "built_in")
    script = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    if name is None:
        name = f"{Path(script).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    content: dict[str, Any] = {"kind": kind, "config": config or {}, "script": script}
    content["optimizers"] = [
        {"type": type(one).__name__, "lr": current(one, "lr")} for one in optimizers
    ]
    if lineage is not None:
        content["lineage"] = lineage
    rank, ranks, path = _place(Path(run_dir), name, content)
    recorder = Recorder(
        model,
        optimizers,
        path,
        rank=rank,
        ranks=ranks,
        every=every,
        scaler=scaler,
        controls=controls,
        total_steps=total_steps,
        environment=_environment(),
        loss_fn=loss_fn,
        loader=loader,
        first_step=first_step,
    )
    attachment = Attachment()
    for one, inner in zip(given, optimizers, strict=True):
        lead_through(one, inner, attachment)
    return Watch(recorder, path, attachment)


def _check(controls: Controls, model: torch.nn.Module, *, built_in: bool) -> None:
    """Raises CommandError for what could not be put in force at the first step."""
    inside(model, controls.frozen)
    find(model, controls.eval_modules)
    default = Controls()
    for name, reason in OF_THE_LOOP.items():
        if not built_in and getattr(controls, name) != getattr(default, name):
            raise CommandError(reason)


def _place(run_dir: Path, name: str, content: dict[str, Any]) -> tuple[int, int, Path]:
    """This process's rank, how many there are, and the run directory, which they share."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1, create_run(run_dir, name, content)
    rank = distributed.get_rank()
    shared = [str(create_run(run_dir, name, content)) if rank == 0 else ""]
    distributed.broadcast_object_list(shared, src=0)
    return rank, distributed.get_world_size(), Path(shared[0])


def _environment() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "platform": platform.platform(),
        "torch_inspector": _version(),
        "command": sys.argv,
        "pid": os.getpid(),
        "threads": torch.get_num_threads(),
    }


def _version() -> str:
    try:
        return importlib.metadata.version("torch-inspector")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _failure(error: BaseException, phase: str) -> RunFailed:
    return RunFailed(
        error=type(error).__name__,
        message=str(error),
        phase=phase,
        frames=user_frames(traceback.extract_tb(error.__traceback__)),
        traceback="".join(traceback.format_exception(error)),
    )
