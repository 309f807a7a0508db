"""Going on from a checkpoint: what may differ from the run it comes from, and what may not.

Where nothing but the length of the training differs, the run is *resumed*; where settings differ
that can change between two steps, it is *forked*; anything else would be another training, and is
refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.training import checkpoints
from inspector.training.checkpoints import State
from inspector.training.order import refuse_unrepeatable
from inspector.training.state import check_fit
from inspector.training.task import Task

FREE = frozenset((
    "resume", "epochs", "steps", "early_stopping", "checkpoint_every", "in_process", "pin_memory",
    "torch_threads", "metrics",
))  # fmt: skip
"""Settings that do not change what the next step does."""

SETTABLE = frozenset((
    "controls", "lr", "momentum", "weight_decay", "optimizer", "optimizer_args", "loss",
    "loss_args", "precision", "workers", "compile", "deterministic", "device", "by_hand",
))  # fmt: skip
"""Settings that a fork may change; all others decide which training it is."""

_AS_CONTROLS = ("lr", "momentum", "weight_decay")


@dataclass(frozen=True, slots=True)
class Continuation:
    """A checkpoint that a run goes on from.

    Attributes:
        parent: name of the run it comes from; empty for a file from elsewhere.
        step: number of completed steps.
        in_force: the controls that were in force there.
        controls: those that are changed at once.
        changes: all that differs, as it is shown.
        shown: the file, relative to the folder of runs; ``title`` as ``RUN@STEP``.
    """

    path: Path
    state: State
    parent: str
    step: int
    in_force: Controls
    controls: dict[str, Any]
    changes: dict[str, Any]
    shown: str
    title: str
    notes: list[str] = field(default_factory=list)

    def lineage(self) -> dict[str, Any]:
        """What ``run.json`` says about it."""
        return {
            "parent": self.parent,
            "step": self.step,
            "checkpoint": self.shown,
            "kind": "fork" if self.changes else "resume",
            "changes": self.changes,
        }


def base_config(state: State) -> RunConfig:
    """The configuration of the run that a checkpoint comes from, with the controls in force."""
    return RunConfig.from_dict(state["config"])


def without_start(config: RunConfig) -> RunConfig:
    """The configuration without what only decides the first weights, which are replaced."""
    return dataclasses.replace(config, weights="", init={})


def continuation(config: RunConfig, runs_dir: Path) -> Continuation | None:
    """What ``config.resume`` refers to; None where it is empty.

    Raises:
        ConfigError: there is no such checkpoint, or it is one of another training.
    """
    if not config.resume:
        return None
    path = checkpoints.locate(config.resume, runs_dir)
    state = checkpoints.read(path)
    base = base_config(state)
    here = runs_dir.resolve()
    inside = path.relative_to(here) if path.is_relative_to(here) else Path()
    parent = inside.parts[0] if inside.parts else ""  # the file may know an older name
    at = path.stem if path.stem in ("last", "best") else state["step"]
    title = f"{parent}@{at}" if parent else path.name
    changes, controls = _changes(base, config, title)
    return Continuation(
        path,
        state,
        parent,
        state["step"],
        base.controls,
        controls,
        changes,
        inside.as_posix() if parent else path.name,
        title,
    )


def _changes(
    base: RunConfig, config: RunConfig, source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All settings that differ, and those of them that are controls."""
    changes: dict[str, Any] = {}
    controls: dict[str, Any] = {}
    for item in dataclasses.fields(RunConfig):
        before, after = getattr(base, item.name), getattr(config, item.name)
        if item.name in FREE or _same(before, after):
            continue
        if item.name not in SETTABLE:
            raise ConfigError(
                f"{source} comes from another training: {item.name} is {before!r:.60} there and "
                f"{after!r:.60} here. Start anew, or leave it as it was."
            )
        if item.name in _AS_CONTROLS:
            controls[item.name] = changes[item.name] = after
        elif item.name != "controls":
            changes[item.name] = after
    for name in Controls.__slots__:
        before, after = getattr(base.controls, name), getattr(config.controls, name)
        if not _same(before, after):
            controls[name] = changes[name] = after
    return changes, controls


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return list(before) == list(after)
    return bool(before == after)


def _is_complete(task: Task, at: dict[str, int]) -> bool:
    config, length = task.config, task.batches_per_epoch
    if config.steps:
        return at["step"] >= config.steps
    return at["epoch"] + (at["batch"] >= length) >= config.epochs


def attach(task: Task, continued: Continuation) -> Task:
    """The task, which will go on from there.

    Raises:
        ConfigError: weights or samples are not those of the run, all steps are done, or the data
            cannot be taken up in the middle.
    """
    state, source = continued.state, continued.title
    check_fit(task, state, source)
    refuse_unrepeatable(task.train_loader, task.config.data)
    if state["samples"] != task.samples:
        raise ConfigError(
            f"{source} comes from other data: {task.config.data} had {state['samples']} samples to "
            f"train on there and has {task.samples} here."
        )
    if _is_complete(task, state["at"]):
        raise ConfigError(
            f"{source} has done all of its {continued.step} steps already; give a greater number "
            "of steps or epochs."
        )
    edited = [name for name, text in task.sources.items() if state["sources"].get(name) != text]
    if edited:
        continued.notes.append(f"Edited since the checkpoint: {', '.join(edited)}.")
    return dataclasses.replace(task, resumed=continued)
