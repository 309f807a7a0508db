"""A run whose every number is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inspector.events import CommandApplied, RunFinished, RunStarted
from inspector.quantities import SeriesKey
from inspector.store.writer import Writer

LOSS = SeriesKey("loss")
OWN = SeriesKey("my/score")
NORM = SeriesKey("grad_norm", "parameter", "net.0.weight")
ROOT = SeriesKey("activation_mean", "module", "")
STEPS = 150


def known(rank: int) -> dict[SeriesKey, dict[int, np.float32]]:
    """What :func:`record` writes: value by step by series."""
    random = np.random.default_rng(rank)
    losses = random.standard_normal(STEPS).astype(np.float32)
    losses[[7, 8, 9]] = np.nan, np.inf, -np.inf
    losses[10] = np.float32(1e-40)  # subnormal
    norms = random.standard_normal(STEPS).astype(np.float32)
    return {
        LOSS: {step: losses[step] for step in range(STEPS)},
        OWN: {step: np.float32(step / 3) for step in range(0, STEPS, 2)},
        NORM: {step: norms[step] for step in range(0, STEPS, 10)},
        ROOT: {step: np.float32(-step) for step in range(0, STEPS, 10)},
    }


def record(path: Path, rank: int) -> None:
    series = known(rank)
    writer = Writer(path, rank=rank)
    writer.event(0, RunStarted())
    for step in range(STEPS):
        for group, keys in (("scalar", (LOSS, OWN)), ("parameter", (NORM, ROOT))):
            here = tuple(key for key in keys if step in series[key])
            if here:
                writer.append(group, step, here, [series[key][step] for key in here])
    writer.event(90, CommandApplied(command_id="a", name="lr", effective=0.5))
    writer.histogram(140, "weight", "net.0.weight", -1.0, 1.0, [1, 0, 5, 2])
    writer.document(
        "parameters",
        0,
        {"parameters": [{"name": "net.0.weight", "module": "net.0", "elements": 6}]},
    )
    writer.event(STEPS, RunFinished())
    writer.heartbeat(STEPS, "finished")
    writer.close()
