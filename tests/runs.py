"""Runs of the built-in trainer in this process, and what they have told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspector.config import RunConfig
from inspector.events import Event
from inspector.store.reader import Run
from inspector.training import runner

_SECONDS = 120


def train(config: RunConfig, runs_dir: Path, name: str | None = None) -> Run:
    """Trains until the run ends, in whatever way."""
    made = runner.start(config, runs_dir, name)
    assert runner.join(_SECONDS)
    return Run(runs_dir / made)


def only(run: Run, kind: type[Event]) -> list[Any]:
    """The events of one kind, in order."""
    return [stored.event for stored in run.events() if isinstance(stored.event, kind)]
