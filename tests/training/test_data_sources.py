"""Data sources against their descriptions, and the split into parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from inspector import catalog
from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError
from inspector.training.data import _SOURCES, load
from inspector.training.parts import loaders

LOCAL = [source for source in catalog.DATA.values() if not source.download_bytes]


def tensors(batch: Any) -> list[torch.Tensor]:
    return (
        [batch] if isinstance(batch, torch.Tensor) else [t for part in batch for t in tensors(part)]
    )


def test_every_source_is_described() -> None:
    assert set(_SOURCES) == set(catalog.DATA)


@pytest.mark.parametrize("entry", LOCAL, ids=lambda entry: entry.name)
def test_sources_are_as_described(entry: catalog.DataSource) -> None:
    source = load(entry.name, {})
    assert (source.kind, source.layout) == (entry.kind, entry.layout)
    assert (source.shape, source.outputs) == (entry.shape, entry.outputs)
    if source.kind == "classification":
        assert source.targets.unique().tolist() == list(range(entry.outputs))


@pytest.mark.parametrize("entry", LOCAL, ids=lambda entry: entry.name)
def test_parts_are_disjoint_complete_and_fixed_by_the_seed(entry: catalog.DataSource) -> None:
    config = RunConfig(data=entry.name, validation=0.25, batch_size=50)
    source = load(entry.name, {})
    torch.manual_seed(1)
    train, held, *_ = loaders(source, config)
    torch.manual_seed(2)  # other uses of the global random numbers change nothing
    again, *_ = loaders(source, config)
    rows, held_rows = train.dataset.rows.tolist(), held.dataset.rows.tolist()  # type: ignore[attr-defined]
    assert sorted(rows + held_rows) == list(range(len(source.inputs)))
    assert len(held_rows) == round(0.25 * len(source.inputs))
    for batch, same in zip(train, again, strict=True):
        assert all(map(torch.equal, tensors(batch), tensors(same)))
    other, *_ = loaders(source, replace(config, seed=1))
    assert other.dataset.rows.tolist() != rows  # type: ignore[attr-defined]


def test_shuffling_neither_uses_nor_moves_the_global_random_numbers() -> None:
    train, *_ = loaders(load("two_moons", {}), RunConfig(data="two_moons"))
    state = torch.get_rng_state()
    first = torch.cat([targets for _, targets in train])
    second = torch.cat([targets for _, targets in train])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, second)


def test_long_memory_asks_for_the_first_symbol() -> None:
    source = load("long_memory", {"length": 5, "symbols": 3, "samples": 20})
    assert source.shape == (5, 3)
    assert torch.equal(source.inputs[:, 0].argmax(dim=1), source.targets)


def test_bytes_become_shares_and_images_are_enlarged() -> None:
    source = load("fake_images", {"samples": 4, "size": 8})
    train, *_ = loaders(source, RunConfig(data="fake_images", validation=0), size=32)
    inputs, _ = next(iter(train))
    assert inputs.shape == (4, 3, 32, 32)
    assert 0 <= inputs.min() < inputs.max() <= 1


def test_unknown_names_and_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no data named 'digit'; choose from digits"):
        load("digit", {})
    with pytest.raises(ConfigError, match=r"no argument 'nois'; choose from samples, noise, seed"):
        load("two_moons", {"nois": 1})
    with pytest.raises(ConfigError, match=r"noise of data two_moons must be a number"):
        load("two_moons", {"noise": "much"})


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"fake_images with .* is empty; ask for more"):
        load("fake_images", {"samples": 0})
    one = load("fake_images", {"samples": 1})
    with pytest.raises(DataError, match=r"all 1 of fake_images are held out by validation=0\.9"):
        loaders(one, RunConfig(data="fake_images", validation=0.9))
