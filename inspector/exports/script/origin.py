"""The checkpoint that a run went on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn, optim

from inspector.commands import Controls
from inspector.errors import ConfigError, ExportError
from inspector.exports.model.checkpoint import origin_of
from inspector.store.reader import Run
from inspector.training.checkpoints import State, read
from inspector.training.continuing import base_config


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint that a run went on from.

    Attributes:
        title: as ``RUN@STEP``.
        controls: those in force there.
    """

    path: Path
    state: State
    title: str
    controls: Controls

    @property
    def step(self) -> int:
        """Completed steps."""
        return int(self.state["step"])

    @property
    def begun(self) -> int:
        """Steps that were begun, those included that loss scaling left out."""
        return int(self.state["at"]["step"])

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return int(self.state["at"]["epoch"])

    @property
    def batch(self) -> int:
        """Batches that are done of the epoch that was interrupted."""
        return int(self.state["at"]["batch"])

    def part(self, name: str) -> dict[str, Any]:
        """State of the ``schedule``, of ``loss scaling`` or of ``early stopping``."""
        return dict(self.state["parts"].get(name) or {})

    def keeps(self, optimizer: optim.Optimizer) -> bool:
        """Whether the optimizer goes on, and is not one of another type that begins anew."""
        return bool(self.state["optimizer_type"] == type(optimizer).__name__)

    def regrouped(self, model: nn.Module, optimizer: optim.Optimizer) -> list[list[str]]:
        """Names in the checkpoint's parameter groups; empty where they are the optimizer's."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        now = [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
        kept: list[list[str]] = self.state["groups"]
        known = all(name in names.values() for group in kept for name in group)
        return kept if known and now != kept and self.keeps(optimizer) else []


def find_origin(run: Run) -> Origin | None:
    """What a run went on from; None if it began by itself.

    Raises:
        ExportError: the file is gone, or cannot be read.
    """
    path = origin_of(run)
    if path is None:
        return None
    try:
        state = read(path)
    except ConfigError as error:
        raise ExportError(str(error)) from error
    told = run.meta["lineage"]
    title = f"{told['parent']}@{told['step']}" if told.get("parent") else str(told["checkpoint"])
    return Origin(path, state, title, base_config(state).controls)
