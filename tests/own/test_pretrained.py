"""Weights by torchvision's names, fetched from a local web server as from torchvision's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet18_Weights, get_model

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError, ModelError
from inspector.training.dry_run import dry_run
from inspector.training.own.preview import preview_data, preview_model
from inspector.training.pretrained import load_pretrained, offered
from inspector.training.task import build_task
from tests.file_server import files_served


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of weights as torchvision serves it: named by the start of its checksum."""
    torch.manual_seed(7)
    state = get_model("resnet18").state_dict()
    folder = tmp_path_factory.mktemp("site")
    torch.save(state, folder / "made.pth")
    digest = hashlib.sha256((folder / "made.pth").read_bytes()).hexdigest()
    return (folder / "made.pth").rename(folder / f"resnet18-{digest[:8]}.pth"), state


@pytest.fixture
def kept(
    tmp_path: Path, trained: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where weights are kept; torchvision's address leads to the local server."""
    monkeypatch.setenv("TORCH_INSPECTOR_DATA", str(tmp_path))
    with files_served(trained[0].parent) as address:
        weights = ResNet18_Weights.IMAGENET1K_V1.value
        object.__setattr__(weights, "url", address + trained[0].name)
        yield tmp_path / "weights"


@pytest.fixture(autouse=True)
def address_is_restored() -> Iterator[None]:
    weights = ResNet18_Weights.IMAGENET1K_V1.value
    before = weights.url
    yield
    object.__setattr__(weights, "url", before)


def configured(**fields: Any) -> RunConfig:
    return RunConfig(
        **{
            "model": "torchvision:resnet18",
            "weights": "torchvision:IMAGENET1K_V1",
            "data": "fake_images",
            "data_args": {"samples": 12},
            "batch_size": 4,
            **fields,
        }
    )


def test_names_are_listed_with_what_they_reach() -> None:
    (one,) = offered("torchvision:resnet18")
    assert one.name == "torchvision:IMAGENET1K_V1"
    assert one.about == "IMAGENET1K_V1: 45 MB, 69.8% right on ImageNet"
    assert offered("mlp") == offered("torchvision:googlenot") == []


def test_everything_but_the_last_layer_is_loaded(
    kept: Path, trained: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    told: list[str] = []
    task = build_task(configured(), lambda text, _: told.append(text))
    assert f"Downloading {trained[0].name}" in told[0]
    assert [path.name for path in kept.iterdir()] == [trained[0].name]
    own = task.model.state_dict()
    assert own["fc.weight"].shape == (10, 512)
    same = [name for name, value in trained[1].items() if not name.startswith("fc.")]
    assert all(torch.equal(own[name], trained[1][name]) for name in same)
    dry_run(task)
    told.clear()
    build_task(configured(), lambda text, _: told.append(text))
    assert told == []


@pytest.mark.usefixtures("kept")
def test_grey_images_get_the_mean_of_the_colours(
    trained: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    config = configured(data="digits", data_args={})
    task = build_task(config)
    first = trained[1]["conv1.weight"]
    images = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(images, task.model.state_dict()["conv1.weight"]),
        torch.nn.functional.conv2d(images.expand(-1, 3, -1, -1), first),
    )
    made, source = preview_data(config)
    preview_model(config, source, made)
    (note,) = made.notes
    assert "but for fc.weight, fc.bias, which had 1000 classes" in note
    assert "fitted to 1 channels" in note
    assert "224 pixels with mean 0.485, 0.456, 0.406" in note


def test_what_cannot_be_had_is_said(kept: Path, trained: tuple[Path, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no weights 'torchvision:V9' .* choose from torchv"):
        build_task(configured(weights="torchvision:V9"))
    with pytest.raises(ConfigError, match=r"for mlp; choose from a file: torchvision has none"):
        build_task(configured(model="mlp"))
    weights = ResNet18_Weights.IMAGENET1K_V1.value
    address = weights.url
    object.__setattr__(weights, "url", address.replace("resnet18-", "gone/resnet18-"))
    with pytest.raises(DataError, match=r"Cannot download .*404.* or start without weights"):
        build_task(configured())
    damaged = trained[0].with_name("other-00000000.pth")
    damaged.write_bytes(b"something else")
    object.__setattr__(weights, "url", f"{address.rpartition('/')[0]}/{damaged.name}")
    with pytest.raises(DataError, match=r"expected SHA256 00000000, but got [0-9a-f]{64}"):
        build_task(configured())
    assert not list(kept.glob("other*"))
    object.__setattr__(weights, "url", address)
    with pytest.raises(ModelError, match=r"torchvision:IMAGENET1K_V1 do not fit .* missing"):
        load_pretrained(get_model("resnet34"), "torchvision:resnet18", "torchvision:IMAGENET1K_V1")
