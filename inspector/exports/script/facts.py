"""What a script has to know of a run: its task as it was built, and what was done by hand."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.errors import ConfigError, ExportError, InspectorError
from inspector.exports.by_hand import by_hand
from inspector.exports.configuration import built_in
from inspector.exports.formats import Request
from inspector.exports.model.checkpoint import saved
from inspector.exports.model.rebuilt import kept_reference
from inspector.exports.script.origin import Origin, find_origin
from inspector.store.reader import Run
from inspector.training.checkpoints import read
from inspector.training.continuing import without_start
from inspector.training.own.code import OwnCode, find_own
from inspector.training.own.reference import describe
from inspector.training.task import Task, build_task, seed_everything


@dataclass(frozen=True, slots=True)
class Facts:
    """A run, seen by who writes it down as a script.

    Attributes:
        config: what it was built from; of a run that went on, without what only decides the
            first weights.
        own: the user's own Python that the configuration refers to.
        draws: whether that draws random numbers when it is imported.
        controls: in force when training began, or went on.
        random: torch's random numbers when the task was built.
        changes: (completed steps, control, value) in the order in which they were applied.
        last: completed steps after which the run was stopped by hand; None if it was not.
        threads: of PyTorch on the CPU.
        origin: the checkpoint that the run went on from; None if it began by itself.
        missing: sentences about what the script does not repeat.
    """

    run: Run
    config: RunConfig
    task: Task
    own: OwnCode
    draws: bool
    controls: Controls
    random: Tensor
    changes: tuple[tuple[int, str, Any], ...]
    last: int | None
    threads: int
    origin: Origin | None = None
    missing: tuple[str, ...] = ()

    @property
    def first(self) -> int:
        """Steps completed before the script begins."""
        return self.origin.step if self.origin else 0

    @property
    def validates(self) -> bool:
        """Whether there are held-out batches, as far as the loader says."""
        try:
            return len(self.task.val_loader) > 0
        except TypeError:
            return True

    @property
    def collates(self) -> bool:
        """Whether the user's own data has a ``collate_fn``."""
        return self.own.data is not None and hasattr(self.own.data.module, "collate_fn")

    def ever(self, control: str) -> bool:
        """Whether a control was changed by hand."""
        return any(name == control for _, name, _ in self.changes)


def facts(request: Request) -> Facts:
    """Builds the task again and reads what was done by hand.

    Raises:
        ExportError: the run has no configuration, or what it went on from is gone.
        InspectorError: the model or the data cannot be built any more.
    """
    content = dict(built_in(request))
    for part in ("model", "data"):
        content[part] = kept_reference(str(content[part]), request.run.path)
    known = {item.name for item in dataclasses.fields(RunConfig)}
    config = RunConfig.from_dict({key: content[key] for key in known & set(content)})
    origin = find_origin(request.run)
    if origin is not None:
        config = without_start(config)
    try:
        task = build_task(config)
    except InspectorError:
        raise
    except Exception as error:  # out of the user's own code
        raise ExportError(
            f"The task of run {request.run.name} can no longer be built: {describe(error)}; "
            "export config instead."
        ) from error
    drawn = torch.get_rng_state()
    own, draws = _own(config)
    done = by_hand(request.run)
    return Facts(
        run=request.run,
        config=config,
        task=task,
        own=own,
        draws=draws,
        controls=origin.controls if origin else config.controls,
        random=drawn,
        changes=done.changes,
        last=done.last,
        threads=_threads(request),
        origin=origin,
        missing=done.missing,
    )


def _own(config: RunConfig) -> tuple[OwnCode, bool]:
    """The user's own Python, and whether executing it draws random numbers."""
    seed_everything(config.seed)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    own = find_own(config)
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    return own, before[:2] != after[:2] or not torch.equal(before[2], after[2])


def _threads(request: Request) -> int:
    """Threads that the run computed with; sums depend on their number in the last bit."""
    path = saved(request.run.path).get("last")
    if path is not None:
        try:
            return int(read(path).get("threads", torch.get_num_threads()))
        except ConfigError:
            pass
    return torch.get_num_threads()
