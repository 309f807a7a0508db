"""Augmentation: what it does to the training part alone, that it repeats, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError, ModelError
from inspector.training.dry_run import dry_run
from inspector.training.own.augment import CURATED, Augment, offer
from inspector.training.task import Task, build_task

FLIP = {"name": "RandomHorizontalFlip", "p": 1.0}
TURN = {"name": "RandomRotation", "degrees": 90}


def build(**fields: Any) -> Task:
    return build_task(RunConfig(**{"model": "lenet", "data": "digits", "batch_size": 64, **fields}))


def epoch(task: Task) -> list[Tensor]:
    return [torch.cat(parts) for parts in zip(*task.train_loader, strict=True)]


def test_each_training_sample_is_flipped_and_no_other() -> None:
    task, plain = build(augment=[FLIP]), build()
    inputs, labels = epoch(task)
    before, same_labels = epoch(plain)
    assert torch.equal(labels, same_labels)  # the order of the first epoch is that without
    assert torch.equal(inputs, before.flip(-1))
    held, held_before = next(iter(task.val_loader))[0], next(iter(plain.val_loader))[0]
    assert torch.equal(held, held_before)


def test_batches_repeat_by_the_seed_whatever_else_is_random() -> None:
    augment = [TURN, {"name": "GaussianNoise"}, {"name": "RandAugment"}]
    fields = {"augment": augment, "data": "fake_images", "data_args": {"samples": 64}}
    torch.manual_seed(5)
    task = build(**fields)
    state = torch.get_rng_state()
    first, second = epoch(task)[0], epoch(task)[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = build(**fields)
    torch.rand(3)
    assert torch.equal(epoch(again)[0], first)
    assert torch.equal(epoch(again)[0], second)
    assert not torch.equal(first, second)
    assert not torch.equal(epoch(build(**fields, seed=1))[0], first)


@pytest.mark.parametrize("balance", [False, True])
def test_loading_processes_change_nothing(balance: bool) -> None:
    augment = [TURN, {"name": "RandomErasing"}]
    fields = {"augment": augment, "balance": balance, "batch_size": 200}
    alone, two = build(**fields), build(**fields, workers=2)
    for mine, theirs in zip(epoch(alone), epoch(two), strict=True):
        assert torch.equal(mine, theirs)


def test_each_sample_is_drawn_by_itself_as_torchvision_draws_it() -> None:
    images = torch.rand(6, 3, 8, 8)
    changed, labels = Augment([TURN])((images, torch.arange(6)), list(range(6)))
    assert torch.equal(labels, torch.arange(6))
    for place in range(6):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(place)
            expected = v2.RandomRotation(90)(images[place])
        assert torch.equal(changed[place], expected)


def test_masks_move_with_their_images_and_keep_whole_classes(tmp_path: Path) -> None:
    path = tmp_path / "masks.py"
    path.write_text(
        "import torch\n"
        "from torch import nn\n"
        "def data():\n"
        "    torch.manual_seed(0)\n"
        "    images = torch.rand(24, 1, 8, 8)\n"
        "    return images, (images[:, 0] > 0.5).long()\n"
        "def model():\n"
        "    return nn.Conv2d(1, 2, 1)\n",
        "utf-8",
    )
    fields = {"model": f"file:{path}:model", "data": f"file:{path}:data"}
    task = build(**fields, augment=[{"name": "RandomCrop", "size": 8, "padding": 3}, FLIP])
    dry_run(task)
    assert task.kind == "per_pixel"
    inputs, masks = epoch(task)
    assert masks.dtype == torch.int64
    assert torch.equal(masks, (inputs[:, 0] > 0.5).long())  # padding is 0 in both
    assert not torch.equal(epoch(task)[0].sort(0).values, inputs.sort(0).values)


def test_the_echo_of_an_autoencoder_is_the_augmented_image() -> None:
    inputs, targets = epoch(build(model="autoencoder", augment=[TURN], normalize=True))
    assert torch.equal(inputs, targets)


@pytest.mark.parametrize("name", CURATED)
def test_everything_offered_trains_with_its_suggestions(name: str) -> None:
    found = offer(name, 8)
    task = build(augment=[{"name": name, **found.suggested}], batch_size=8, data="fake_images",
                 data_args={"samples": 16, "size": 8})  # fmt: skip
    batch = dry_run(task)
    assert batch[0].shape == (8, 3, 8, 8)
    assert batch[0].dtype == torch.float32
    assert found.about or found.arguments


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"augment": [{"name": "Flip"}]}, ConfigError, "v2 has no transform named 'Flip'; choose"),
        ({"augment": ["RandomRotation"]}, ConfigError, "RandomRotation needs a value for degrees"),
        ({"augment": [{"degrees": 3}]}, ConfigError, "dicts with the name of a transform"),
        ({"augment": [{**FLIP, "q": 1}]}, ConfigError, "no argument 'q'; choose from p"),
        ({"augment": [{**FLIP, "p": 3}]}, ConfigError, "RandomHorizontalFlip cannot be made of"),
        (
            {"augment": [{"name": "AutoAugment", "policy": "mnist"}]},
            ConfigError,
            "policy of AutoAugment must be one of imagenet, cifar10, svhn",
        ),
        ({"augment": [{"name": "MixUp", "num_classes": 3}]}, ConfigError, "training_step of your"),
        (
            {"augment": [FLIP], "data": "spirals", "model": "mlp"},
            ConfigError,
            "augment changes images, but spirals has layout table",
        ),
        (
            {"augment": [{"name": "RandomCrop", "size": 6}]},
            ModelError,
            r"images of shape \(1, 6, 6\) out of \(1, 8, 8\), and lenet does not take both",
        ),
        (
            {"augment": [{"name": "RandomResize", "min_size": 4, "max_size": 12}]},
            DataError,
            "RandomResize give images of different shapes .* add Resize",
        ),
        ({"augment": [{"name": "ToPILImage"}]}, DataError, "image of float32, but got a Image"),
        ({"augment": [{"name": "JPEG", "quality": 50}]}, DataError, "JPEG cannot take images of"),
    ],
)
def test_what_cannot_work_is_refused_before_the_start(
    fields: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        dry_run(build(**fields))


def test_images_of_pillow_in_folders_of_the_users_own_are_augmented(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for place in range(6):
            image = Image.new("RGB", (9, 9))
            image.paste((255, 20 * place, 0), (0, 0, 4, 9))
            image.save(tmp_path / "images" / name / f"{place}.png")
    path = tmp_path / "pictures.py"
    path.write_text(
        "from torchvision.datasets import ImageFolder\n"
        f"def data():\n    return ImageFolder({str(tmp_path / 'images')!r})\n",
        "utf-8",
    )
    task = build(model="mlp", data=f"file:{path}:data", augment=[FLIP], batch_size=4)
    dry_run(task)
    inputs, _ = epoch(task)
    assert inputs.shape[1:] == (3, 9, 9)
    assert inputs[:, 0, :, :5].max() == 0
    assert inputs[:, 0, :, 5:].min() == 1
    assert next(iter(task.val_loader))[0][:, 0, :, :4].min() == 1
