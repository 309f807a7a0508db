"""Each practice's preset leaves its trace in the charts or the events of its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from inspector.practice_presets import PRACTICES
from inspector.store.reader import Run
from inspector.training import runner


def texts(run: Run, kind: str) -> list[str]:
    return [stored.event.text for stored in run.events() if stored.event.kind == kind]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return torch.load(run.path / "blobs" / "last.pt")["model"]  # type: ignore[no-any-return]


def spread(run: Run) -> bool:
    first = run.series("activation_std", "hidden.0.0").values[0]
    last = run.series("activation_std", "hidden.11.0").values[0]
    return bool(0.3 < last / first < 3)


def alike(run: Run) -> bool:
    rows = weights(run)["hidden.0.0.weight"]
    return torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-6)


def only_the_head(run: Run) -> bool:
    seen = [
        len(run.series("grad_norm", f"{module}.weight").values)
        for module in ("conv1", "conv2", "fc1", "fc2")
    ]
    return seen[:2] == [0, 0] and min(seen[2:]) > 0


def in_proportion(run: Run) -> bool:
    return np.allclose(run.series("lr/group 1").values, 0.1 * run.series("lr").values)


def falls_and_rises(run: Run) -> bool:
    lr = run.series("lr").values
    return bool(lr[0] < lr.max() > lr[-1]) and 0 < int(lr.argmax()) < len(lr) - 1


TRACES: dict[str, tuple[int, Callable[[Run], bool]]] = {
    "first-weights": (3, spread),
    "equal-weights": (20, alike),
    "label-smoothing": (400, lambda run: run.series("loss").values[-50:].min() > 0.5),
    "one-cycle": (20, falls_and_rises),
    "warm-up": (20, falls_and_rises),
    "plateau": (150, lambda run: "Learning rate 0.05 → 0.025" in texts(run, "notice")[0]),
    "accumulation": (5, lambda run: set(run.series("backward_passes").values) == {8.0}),
    "mixed-precision": (
        90,
        lambda run: (
            len(texts(run, "step_skipped")) > 0
            and run.series("grad_scale").values[-1] < run.series("grad_scale").values[0]
        ),
    ),
    "frozen": (5, only_the_head),
    "two-rates": (5, in_proportion),
    "dropout": (
        230,
        lambda run: (
            run.series("val_loss").values[-1] < run.series("loss").values[-23:].mean() - 0.1
        ),
    ),
    "batch-norm-eval": (
        3,
        lambda run: not any(t.any() for n, t in weights(run).items() if "running_mean" in n),
    ),
    "early-stopping": (1000, lambda run: len(texts(run, "early_stopped")) == 1),
    "second-order": (8, lambda run: run.series("loss").values[-1] < 1e-3),
}


@pytest.mark.parametrize("preset", PRACTICES, ids=lambda preset: preset.key)
def test_a_practice_shows(preset: object, tmp_path: Path) -> None:
    made = next(one for one in PRACTICES if one is preset)
    steps, shows = TRACES[made.key]
    controls = dataclasses.replace(made.config.controls, max_steps_per_s=None)
    config = dataclasses.replace(made.config, steps=steps, controls=controls, torch_threads=1)
    name = runner.start(config, tmp_path)
    assert runner.join(120)
    with Run(tmp_path / name) as run:
        assert run.status == "finished"
        assert shows(run)


@pytest.mark.parametrize("key", ["frozen", "batch-norm-eval"])
def test_what_is_done_on_purpose_is_no_finding(key: str, tmp_path: Path) -> None:
    (made,) = [one for one in PRACTICES if one.key == key]
    controls = dataclasses.replace(made.config.controls, max_steps_per_s=None)
    config = dataclasses.replace(made.config, steps=30, controls=controls, torch_threads=1)
    name = runner.start(config, tmp_path)
    assert runner.join(120)
    codes = {finding.code for finding in Run(tmp_path / name).findings()}
    assert not codes & {"frozen_parameters", "mode_mistake"}
