"""Factories of a user's own: what they may give, and which row is at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError, InspectorError, ModelError
from inspector.training.dry_run import dry_run
from inspector.training.task import Task, build_task

HEAD = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
torch.manual_seed(0)
X = torch.randn(40, 5)
Y = torch.arange(40) % 3
"""


def built(tmp_path: Path, source: str, **fields: Any) -> Task:
    path = tmp_path / "mine.py"
    path.write_text(HEAD + source, "utf-8")
    fields = {"model": "mlp", "batch_size": 8, "data": f"file:{path}:data", **fields}
    task = build_task(RunConfig(**fields))
    dry_run(task)
    return task


def first(task: Task) -> Any:
    return next(iter(task.train_loader))


GIVEN = {
    "dataset": "def data(): return TensorDataset(X, Y)",
    "instance": "data = TensorDataset(X, Y)",
    "tensors": "def data(): return X, Y",
    "arrays": "def data(): return X.double().numpy(), Y.numpy()",
    "samples": "def data(): return [[(x, int(y)) for x, y in zip(X, Y)], [(X[0], 1)]]",
    "loader": "def data(): return DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)",
    "loaders": """
def data():
    return DataLoader(TensorDataset(X, Y), 8), DataLoader(TensorDataset(X[:6], Y[:6]), 3)
""",
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_factory_may_give(tmp_path: Path, name: str) -> None:
    task = built(tmp_path, GIVEN[name])
    assert task.kind == "classification"
    inputs, targets = first(task)
    assert (inputs.shape, inputs.dtype) == ((8, 5), torch.float32)
    assert (targets.shape, targets.dtype) == ((8,), torch.int64)
    assert task.class_names == ("0", "1", "2")
    head = task.model.head
    assert head.out_features == 3  # type: ignore[union-attr]


def test_a_pair_is_training_and_validation(tmp_path: Path) -> None:
    task = built(tmp_path, "def data(): return TensorDataset(X[:30], Y[:30]), TensorDataset(X, Y)")
    assert (len(task.train_set), len(task.val_set)) == (30, 40)
    inputs, _ = task.val_set.__getitems__([0])
    assert torch.equal(inputs[0], task.train_set.__getitems__([0])[0][0])


def test_arguments_reach_the_factory(tmp_path: Path) -> None:
    source = "def data(count: int = 40): return TensorDataset(X[:count], Y[:count])"
    assert len(built(tmp_path, source, data_args={"count": 20}, validation=0).train_set) == 20
    with pytest.raises(ConfigError, match="no argument 'cuont'; choose from count"):
        built(tmp_path, source, data_args={"cuont": 20})


def test_an_endless_set_needs_steps(tmp_path: Path) -> None:
    source = """
class Stream(IterableDataset):
    classes = ("a", "b", "c")
    def __iter__(self):
        while True:
            yield X[0], 1
def data(): return Stream()
"""
    assert built(tmp_path, source, steps=5).total_steps == 5
    with pytest.raises(ConfigError, match="set steps"):
        built(tmp_path, source)


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        ("torch.rand(40)", "regression"),
        ("torch.rand(40, 2)", "regression"),
        ("torch.randint(2, (40, 3))", "multi_label"),
    ],
)
def test_the_task_follows_the_targets(tmp_path: Path, targets: str, kind: str) -> None:
    task = built(tmp_path, f"def data(): return TensorDataset(X, {targets})")
    assert task.kind == kind
    loss, _ = task.step(task.model, first(task))
    assert torch.isfinite(loss)


FAULTS = {
    "empty": ("def data(): return TensorDataset(X[:0], Y[:0])", "TensorDataset, but it is empty"),
    "row": (
        """
class Rows(Dataset):
    def __len__(self): return 40
    def __getitem__(self, row):
        if row == 17: raise OSError("torn file")  # here
        return X[row], int(Y[row])
def data(): return Rows()
""",
        r"Row 17 of Rows cannot be read: OSError: torn file \(.*mine\.py, line 13\)",
    ),
    "negative": ("Y[7] = -100\ndef data(): return TensorDataset(X, Y)", "Row 7: .* got -100"),
    "beyond": (
        "Y[9] = 3\ndef data():\n    d = TensorDataset(X, Y)\n    d.classes = 'abc'\n    return d",
        r"Row 9: expected a label from 0 to 2, but got 3 \(1 such rows\); .* names in classes",
    ),
    "shapes": (
        "def data(): return [(X[0, :k + 1], 0) for k in range(5)], [(X[0], 1)]",
        "cannot be put into one batch .* define collate_fn",
    ),
    "drop_last": ("def data(): return DataLoader(TensorDataset(X, Y), 64, drop_last=True)", "none"),
    "structure": (
        "def data(): return [{'x': x} for x in X], [{'x': X[0]}]",
        "a batch is a dict of x; define training_step",
    ),
    "kind": ("def data(): return 3", "a Dataset, a DataLoader, or two of them .* a int"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_before_the_start(tmp_path: Path, name: str) -> None:
    source, sentence = FAULTS[name]
    with pytest.raises(InspectorError, match=sentence):
        built(tmp_path, source)


def test_a_loader_is_not_resampled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="normalize cannot be applied to a DataLoader"):
        built(tmp_path, GIVEN["loader"], normalize=True)


def test_a_last_batch_of_one_is_found(tmp_path: Path) -> None:
    source = """
def data(): return TensorDataset(X[:17], Y[:17])
class Net(nn.Sequential):
    def __init__(self): super().__init__(nn.Linear(5, 3), nn.BatchNorm1d(3))
"""
    model = f"file:{tmp_path / 'mine.py'}:Net"
    with pytest.raises(ModelError, match="last batch of an epoch holds one sample"):
        built(tmp_path, source, validation=0, model=model)
    built(tmp_path, source, validation=0, model=model, batch_size=7)


def test_models_that_are_none(tmp_path: Path) -> None:
    source = "def data(): return TensorDataset(X, Y)\ndef net(size): return size\nn = 3 + len(X)\n"
    model = f"file:{tmp_path / 'mine.py'}:"
    for name, args, error, sentence in (
        ("net", {}, ConfigError, "needs a value for size"),
        ("net", {"size": 3}, ModelError, "to give a torch.nn.Module, but it gave a int"),
        ("net", {"sise": 3}, ConfigError, "no argument 'sise'; choose from size"),
        ("n", {}, ConfigError, "to be a class, a function or a module, but got a int"),
    ):
        with pytest.raises(error, match=sentence):
            built(tmp_path, source, model=model + name, model_args=args)


def test_per_pixel(tmp_path: Path) -> None:
    source = """
def data(): return TensorDataset(torch.rand(20, 3, 8, 8), torch.randint(4, (20, 8, 8)))
class Net(nn.Conv2d):
    def __init__(self, in_channels, num_classes): super().__init__(in_channels, num_classes, 1)
"""
    task = built(tmp_path, source, model=f"file:{tmp_path / 'mine.py'}:Net")
    assert task.kind == "per_pixel"
    _, measured = task.step(task.model, first(task))
    assert 0 <= float(measured["accuracy"]) <= 1
    with pytest.raises(ModelError, match=r"scores of shape \(8, 'classes', 8, 8\) from lenet"):
        built(tmp_path, source, model="lenet")


def test_data_errors_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        built(tmp_path, FAULTS["empty"][0])


def test_pairs_of_images_keep_their_targets(tmp_path: Path) -> None:
    source = """
clean = torch.rand(20, 1, 8, 8)
def data(): return TensorDataset(clean + 1, clean)
def labelled(): return TensorDataset(clean, torch.arange(20) % 2)
"""
    task = built(tmp_path, source, model="autoencoder")
    inputs, targets = first(task)
    assert task.kind == "reconstruction"
    assert torch.allclose(inputs, targets + 1)
    other = f"file:{tmp_path / 'mine.py'}:labelled"
    task = built(tmp_path, source, model="autoencoder", data=other, task="reconstruction")
    inputs, targets = first(task)
    assert torch.equal(inputs, targets)


def test_what_a_source_draws_follows_the_seed(tmp_path: Path) -> None:
    source = "noise = torch.randn(40, 5)\ndef data(): return TensorDataset(noise, Y)"
    text = HEAD.replace("torch.manual_seed(0)", "") + source
    (tmp_path / "draws.py").write_text(text, "utf-8")
    data = f"file:{tmp_path / 'draws.py'}:data"
    batches = [
        build_task(RunConfig(data=data, seed=seed)).train_set.__getitems__([0])[0]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
