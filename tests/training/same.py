"""Comparing runs bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from inspector.store.reader import Run

OF_THE_RUN = ("config", "wall", "run", "reason", "val_loss", "best")
"""What may differ between two checkpoints of the same state."""


def last(run: Run) -> dict[str, Any]:
    """The last checkpoint, without what says which run it is of."""
    state: dict[str, Any] = torch.load(
        run.path / "blobs" / "checkpoints" / "last.pt", weights_only=True
    )
    return {name: value for name, value in state.items() if name not in OF_THE_RUN}


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Paths of everything that is not the same in both."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(set(one) | set(other), key=str):
            yield from differences(one.get(key), other.get(key), f"{path}/{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            yield path
        for place, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{path}/{place}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield path
    elif one != other:
        yield path


def recorded(run: Run, name: str = "loss") -> dict[int, float]:
    series = run.series(name, max_points=100_000)
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def files(run: Run) -> list[str]:
    return sorted(path.name for path in Path(run.path, "blobs", "checkpoints").glob("*"))
