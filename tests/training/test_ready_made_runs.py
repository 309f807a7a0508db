"""Presets are worth seeing: each shows what its text promises."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from inspector import presets
from inspector.config import RunConfig
from inspector.presets import PRESETS, Preset
from inspector.training.dry_run import dry_run
from inspector.training.task import Task, build_task


def config(key: str) -> RunConfig:
    preset = presets.find(key)
    assert preset is not None
    return preset.config


def steps(task: Task, clip: float = float("inf")) -> Iterator[tuple[float, float]]:
    """Loss and gradient norm before clipping, step by step."""
    while True:
        for inputs, targets in task.train_loader:
            task.optimizer.zero_grad()
            loss = task.loss_fn(task.model(inputs), targets)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(task.model.parameters(), clip)
            task.optimizer.step()
            yield loss.item(), norm.item()


def accuracy(task: Task) -> float:
    inputs, targets = task.val_set.__getitems__(range(len(task.val_set)))
    task.model.eval()
    with torch.no_grad():
        return (task.model(inputs).argmax(1) == targets).float().mean().item()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_presets_build_and_explain_themselves(preset: Preset) -> None:
    dry_run(build_task(preset.config))
    assert preset.title and preset.about.endswith(".") and preset.notice.endswith(".")
    assert RunConfig.from_dict(preset.config.to_dict()) == preset.config
    rate = preset.config.controls.max_steps_per_s
    if rate is not None:
        assert build_task(preset.config).total_steps / rate < 180


def test_keys_are_unique() -> None:
    assert len({preset.key for preset in PRESETS}) == len(PRESETS)
    assert presets.find("nothing") is None


def test_the_default_passes_95_percent_within_half_a_minute_of_its_pace() -> None:
    made = config("digits-mlp")
    task = build_task(made)
    for _ in islice(steps(task), int(30 * (made.controls.max_steps_per_s or 0))):
        pass
    assert accuracy(task) > 0.95


def test_the_deep_sigmoid_networks_gradient_vanishes() -> None:
    task = build_task(config("vanishing"))
    for _ in islice(steps(task), 50):
        pass
    first, *_, last = [
        parameter.grad.norm().item()
        for name, parameter in task.model.named_parameters()
        if name.endswith("weight") and parameter.grad is not None
    ]
    assert first < 1e-7 * last


def test_the_recurrent_networks_gradient_explodes_and_clipping_cures_it() -> None:
    made = config("exploding")
    losses, norms = zip(*islice(steps(build_task(made)), 450), strict=True)
    assert max(norms) > 50 * norms[0]
    assert sum(losses[-30:]) / 30 > 1.5
    cured, _ = zip(*islice(steps(build_task(made), clip=1.0), 450), strict=True)
    assert sum(cured[-30:]) / 30 < 0.1


def test_the_trap_turns_nan_after_a_while() -> None:
    losses = [loss for loss, _ in islice(steps(build_task(config("nan"))), 400)]
    born = next(step for step, loss in enumerate(losses) if loss != loss)
    assert 20 < born < 400


def test_the_graph_changes_with_the_data() -> None:
    task = build_task(config("control_flow"))
    uses = []

    def count(*_: object) -> None:
        uses[-1] += 1

    task.model.block.register_forward_hook(count)  # type: ignore[union-attr, operator]
    for _ in range(60):
        uses.append(0)
        next(iter(islice(steps(task), 1)))
    assert len(set(uses)) > 1


def test_the_lstm_remembers() -> None:
    losses = [loss for loss, _ in islice(steps(build_task(config("memory"))), 400)]
    assert losses[20] > 1.9
    assert losses[-1] < 0.1
