"""Models, losses, optimizers and devices by name, and what is refused."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import sample_models
from inspector import catalog
from inspector.config import LOSSES, OPTIMIZERS, RunConfig
from inspector.errors import ConfigError, InspectorError, ModelError
from inspector.training.dry_run import dry_run
from inspector.training.losses import SUITABLE
from inspector.training.task import build_task

PAIRS = [
    (model, data)
    for model in catalog.MODELS
    for data, source in catalog.DATA.items()
    if not source.download_bytes and not catalog.fits(model, data)
]


def test_every_sample_model_is_described_and_has_defaults() -> None:
    folder = Path(str(sample_models.__file__)).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(catalog.MODELS)
    for name, entry in catalog.MODELS.items():
        cls = getattr(import_module(f"sample_models.{name}"), entry.cls)
        assert isinstance(cls(), nn.Module)
        for parameter in inspect.signature(cls).parameters.values():
            assert parameter.default is not parameter.empty


@pytest.mark.parametrize(("model", "data"), PAIRS)
def test_every_model_learns_from_everything_it_fits(model: str, data: str) -> None:
    task = build_task(RunConfig(model=model, data=data, batch_size=16))
    dry_run(task)
    inputs, targets = next(iter(task.train_loader))
    loss = task.loss_fn(task.model(inputs), targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in task.model.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS[:5])
def test_optimizers_have_what_the_configuration_says(optimizer: str) -> None:
    config = RunConfig(optimizer=optimizer, lr=0.02, momentum=0.5, weight_decay=0.1)
    group = build_task(config).optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)
    if optimizer in ("sgd", "rmsprop"):
        assert group["momentum"] == 0.5
    if optimizer in ("adam", "adamw"):
        assert group["betas"] == (0.5, 0.999)


def test_every_loss_is_suitable_for_something() -> None:
    assert {name for losses in SUITABLE.values() for name in losses} | {"auto"} == set(LOSSES)


def test_the_same_seed_builds_the_same_weights() -> None:
    one, same = (build_task(RunConfig(seed=3)).model.state_dict() for _ in range(2))
    other = build_task(RunConfig(seed=4)).model.state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_steps_and_epochs() -> None:
    task = build_task(RunConfig(epochs=3, batch_size=100))  # 1438 samples: 15 batches
    assert (task.total_steps, task.epochs) == (45, 3)
    task = build_task(RunConfig(steps=16, batch_size=100))
    assert (task.total_steps, task.epochs) == (16, 2)


def test_a_torchvision_model_is_adapted() -> None:
    task = build_task(RunConfig(model="torchvision:resnet18", data="digits", batch_size=4))
    assert task.input_shape == (1, 32, 32)
    assert task.model.conv1.in_channels == 1  # type: ignore[union-attr]
    assert task.model.fc.out_features == 10  # type: ignore[union-attr]
    dry_run(task)


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"model": "mpl"}, ConfigError, "no model named 'mpl'; choose one of mlp"),
        ({"model_args": {"dept": 3}}, ConfigError, "no argument 'dept'; choose from depth"),
        ({"model": "lenet", "data": "spirals"}, ModelError, "spirals has layout table .2,."),
        ({"model": "rnn"}, ModelError, "choose digit_rows, long_memory, or another model"),
        ({"model": "torchvision:resnet"}, ConfigError, "no classification model named 'resnet'"),
        (
            {"model": "torchvision:resnet18", "data": "diabetes"},
            ModelError,
            "classifies images, but diabetes is a table for regression; choose digits",
        ),
        (
            {"model": "torchvision:resnet18", "model_args": {"num_classes": 3}},
            ConfigError,
            "num_classes of torchvision:resnet18 is set by the data",
        ),
        ({"loss": "mse"}, ConfigError, "mse does not suit a classification task; choose auto"),
        ({"device": "gpu"}, ConfigError, "device must be auto, cpu, cuda"),
        ({"device": "cuda:99"}, ConfigError, "device cuda:99 was asked for, but this machine has"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    fields: dict[str, object], error: type[InspectorError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build_task(RunConfig(**fields))  # type: ignore[arg-type]
