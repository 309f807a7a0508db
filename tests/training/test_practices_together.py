"""Practices in any combination end with the weights of a plain PyTorch loop, bit by bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.events import RunFinished
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.task import Task, build_task

STEPS = 8
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SCHEDULERS = {
    "step": (
        {"name": "step", "step_size": 3, "gamma": 0.5, "unit": "step"},
        lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    ),
    "one_cycle": (
        {"name": "one_cycle", "max_lr": 0.2, "div_factor": 10.0},
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.2, total_steps=STEPS, div_factor=10.0, cycle_momentum=False
        ),
    ),
    "warmup_cosine": (
        {"name": "warmup_cosine", "warmup_steps": 3, "start_factor": 0.1},
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 0.1, total_iters=3),
                lr_scheduler.CosineAnnealingLR(o, STEPS - 3),
            ],
            milestones=[3],
        ),
    ),
}


def trained(config: RunConfig, runs_dir: Path) -> tuple[Run, dict[str, Any]]:
    """The run, and the weights it ended with."""
    name = runner.start(config, runs_dir)
    assert runner.join(60)
    run = Run(runs_dir / name)
    assert run.status == "finished", [stored.event.text for stored in run.events()]
    return run, torch.load(run.path / "blobs" / "last.pt")["model"]


def endless(task: Task) -> Iterator[Any]:
    while True:
        yield from task.train_loader


def by_hand(config: RunConfig, make_scheduler: Any = None, clip: float = 0.0) -> dict[str, Any]:
    """What any course teaches: autocast, scale, accumulate, unscale, clip, step, schedule."""
    task = build_task(config)
    model, optimizer, accumulate = task.model.train(), task.optimizer, config.controls.accumulate
    dtype = DTYPES.get(config.precision)
    scaler = torch.amp.GradScaler("cpu", enabled=config.precision == "fp16")
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    for path in config.controls.frozen:
        model.get_submodule(path).requires_grad_(False)
    batches = endless(task)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for inputs, targets in islice(batches, accumulate):
            autocast = torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext()
            with autocast:
                loss = task.loss_fn(model(inputs), targets)  # type: ignore[misc]
            scaler.scale(loss / accumulate).backward()
        scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        if scheduler:
            scheduler.step()
    return model.state_dict()


CASES = [
    ("resnet", "float32", 2, 0.05, "warmup_cosine", ("stem",)),
    ("mlp", "float32", 3, 0.05, "one_cycle", ()),
    ("mlp", "bf16", 1, 0.05, "step", ("head",)),
    ("mlp", "bf16", 2, 0.0, "warmup_cosine", ()),
    ("mlp", "bf16", 3, 0.05, "one_cycle", ("hidden.0",)),
    ("mlp", "fp16", 1, 0.0, "warmup_cosine", ("hidden",)),
    ("mlp", "fp16", 2, 0.05, "step", ()),
    ("mlp", "fp16", 3, 0.05, "one_cycle", ("head",)),
]


@pytest.mark.parametrize(("model", "precision", "accumulate", "clip", "schedule", "frozen"), CASES)
def test_any_combination_is_a_plain_loop(
    model: str,
    precision: str,
    accumulate: int,
    clip: float,
    schedule: str,
    frozen: tuple[str, ...],
    tmp_path: Path,
) -> None:
    wanted, make = SCHEDULERS[schedule]
    config = RunConfig(
        model=model,
        steps=STEPS,
        validation=0.02,
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-3,
        batch_size=16,
        precision=precision,
        controls=Controls(
            accumulate=accumulate,
            schedule=wanted,
            frozen=frozen,
            clip="norm" if clip else "off",
            clip_threshold=clip or 1.0,
            capture_every=1,
        ),
    )
    run, weights = trained(config, tmp_path)
    expected = by_hand(config, make, clip)
    assert [name for name in weights if not torch.equal(weights[name], expected[name])] == []
    assert run.series("lr").values.tolist() == pytest.approx(plain_rates(make))
    assert (len(run.series("grad_scale").values) > 0) is (precision == "fp16")
    if clip:
        norms, clipped = run.series("total_grad_norm"), run.series("clipped_grad_norm")
        assert norms.values.max() < 1e3  # unscaled, though the loss is times 65536
        assert clipped.values.max() <= clip * 1.01 < norms.values.max()


def plain_rates(make: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(())], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_accumulation_is_one_large_batch(tmp_path: Path) -> None:
    """On a model without batch normalisation, for equal batches."""
    small = RunConfig(steps=5, batch_size=16, controls=Controls(accumulate=4))
    large = RunConfig(steps=5, batch_size=64)
    one, weights = trained(small, tmp_path)
    other, expected = trained(large, tmp_path)
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name
    assert one.series("loss").values.tolist() == pytest.approx(
        other.series("loss").values.tolist(), rel=1e-5
    )
    assert one.series("accuracy").values.tolist() == pytest.approx(
        other.series("accuracy").values.tolist()
    )
    assert one.series("backward_passes").values.tolist() == [4.0] * 5


def test_the_last_step_of_an_epoch_has_what_is_left(tmp_path: Path) -> None:
    """15 batches by 4: the fourth step has 3 of them, and its loss is divided by 3."""
    controls = Controls(accumulate=4, capture_every=1)
    config = RunConfig(epochs=2, batch_size=100, controls=controls)
    run, weights = trained(config, tmp_path)
    assert run.series("loss").steps.tolist() == list(range(8))
    assert run.series("backward_passes").values.tolist() == [4, 4, 4, 3] * 2
    assert run.series("epoch").values[[3, 7]].tolist() == [1.0, 2.0]
    task = build_task(config)
    for _ in range(2):
        batches = iter(task.train_loader)
        while group := list(islice(batches, 4)):
            task.optimizer.zero_grad()
            for inputs, targets in group:
                (task.loss_fn(task.model(inputs), targets) / len(group)).backward()  # type: ignore[misc]
            task.optimizer.step()
    expected = task.model.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_early_stopping_says_so(tmp_path: Path) -> None:
    config = RunConfig(lr=0.0, epochs=50, batch_size=512, early_stopping=3, test=0.1)
    run, _ = trained(config, tmp_path)
    assert len(run.series("val_loss").values) == 4  # the first is the best, three are no better
    assert len(run.series("test_loss").values) == 1
    events = [stored.event for stored in run.events()]
    (stopped,) = [event for event in events if event.kind == "early_stopped"]
    assert "no validation loss below" in stopped.text
    assert "for 3 epochs" in stopped.text
    assert isinstance(events[-1], RunFinished)
    assert events[-1].reason == "early_stopped"
