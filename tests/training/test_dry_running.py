"""One batch before the start: what it says, and that it leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from inspector.config import RunConfig
from inspector.errors import DataError, ModelError
from inspector.training.dry_run import dry_run
from inspector.training.expectations import wanted
from inspector.training.task import Task, build_task


def with_model(model: nn.Module, **fields: object) -> Task:
    return replace(build_task(RunConfig(**fields)), model=model)  # type: ignore[arg-type]


def test_nothing_is_changed() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.drop = nn.Dropout()
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x: Tensor) -> Tensor:
            out = self.head(self.drop(self.norm(x)))
            assert isinstance(out, Tensor)
            return out

    task = with_model(Noisy())
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    random = torch.get_rng_state()
    dry_run(task)
    after = task.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert task.model.training
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in task.model.modules()
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"model_args": {"in_features": 100}},
            r"Module 'hidden\.0\.0' \(Linear\) got an input of shape \(64, 64\), "
            r"but wants \(…, 100\)",
        ),
        (
            {"model": "lenet", "model_args": {"in_channels": 3}},
            r"'conv1' \(Conv2d\) got .*\(64, 1, 8, 8\), but wants \(batch, 3, height, width\)",
        ),
        (
            {"model": "lenet", "model_args": {"image_size": 16}},
            r"'fc1' \(Linear\) got .*\(64, 128\), but wants \(…, 512\)",
        ),
        (
            {"model": "lstm", "data": "long_memory", "model_args": {"in_features": 5}},
            r"'lstm' \(LSTM\) got .*\(64, 60, 8\), but wants \(batch, steps, 5\)",
        ),
        (
            {"model": "transformer", "data": "digit_rows", "model_args": {"sequence_length": 9}},
            r"Model transformer \(Transformer\) cannot take an input of shape \(64, 8, 8\)",
        ),
        (
            {"model_args": {"out_features": 7}},
            r"mlp gives 7 scores, but digits has labels up to 9; set num_classes to 10",
        ),
        (
            {"data": "diabetes", "model_args": {"out_features": 2}},
            r"numbers of shape \(64, 1\), but got \(64, 2\); set its out_features",
        ),
    ],
)
def test_a_mismatch_names_module_got_and_wanted(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        dry_run(build_task(RunConfig(**fields)))  # type: ignore[arg-type]


def test_a_last_batch_of_one_is_refused_where_it_matters() -> None:
    norm = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    # 1437 = 1438 - 1 samples are left to train on, 1437 = 4 * 359 + 1
    fields = {"batch_size": 4, "validation": 360 / 1797}
    with pytest.raises(ModelError, match=r"last batch .* one sample .*'2' \(BatchNorm1d\) needs"):
        dry_run(with_model(norm, **fields))
    dry_run(build_task(RunConfig(**fields)))  # type: ignore[arg-type]


def test_negative_labels_are_refused() -> None:
    task = build_task(RunConfig())
    task.train_set.source.targets[0] = -100
    with pytest.raises(DataError, match=r"labels from 0 to 9 in digits, but got -100"):
        dry_run(task)


def test_other_outputs_than_a_tensor_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ModelError, match=r"return one tensor for the loss, but it returned tuple"):
        dry_run(with_model(Two()))


def test_an_error_of_the_users_own_is_not_rewritten() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"no batch today, {len(x)} samples or not")

    with pytest.raises(ValueError, match="no batch today"):
        dry_run(with_model(Own()))


@pytest.mark.parametrize(
    ("module", "shape", "sentence"),
    [
        (nn.Linear(3, 2), (5, 4), "(…, 3)"),
        (nn.Conv1d(3, 2, 3), (5, 4, 9), "(batch, 3, length)"),
        (nn.Conv2d(3, 2, 5), (5, 3, 4, 9), "(batch, 3, height, width) with at least 5 × 5 pixels"),
        (nn.ConvTranspose2d(3, 2, 5), (5, 2, 4, 9), "(batch, 3, height, width)"),
        (nn.BatchNorm2d(3), (5, 4, 2, 2), "(batch, 3, …) of 4 axes"),
        (nn.GRU(3, 2), (5, 4, 2), "(steps, batch, 3)"),
        (nn.LSTMCell(3, 2), (5, 2), "(batch, 3)"),
        (nn.LayerNorm((2, 3)), (5, 3, 2), "(…, 2, 3)"),
        (nn.GroupNorm(1, 3), (5, 4, 2), "(batch, 3, …)"),
        (nn.MultiheadAttention(4, 2), (5, 2, 3), "(…, 4)"),
    ],
)
def test_expectations_agree_with_pytorch(
    module: nn.Module, shape: tuple[int, ...], sentence: str
) -> None:
    x = torch.zeros(shape)
    assert wanted(module, x) == sentence
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        module(x, x, x) if isinstance(module, nn.MultiheadAttention) else module(x)


def test_embeddings_want_whole_numbers_in_range() -> None:
    embedding = nn.Embedding(10, 2)
    assert wanted(embedding, torch.zeros(3)) == "whole numbers (it got torch.float32)"
    assert wanted(embedding, torch.tensor([3, 10])) == "numbers from 0 to 9 (it got 3 to 10)"
    assert wanted(embedding, torch.tensor([3, 9])) is None
