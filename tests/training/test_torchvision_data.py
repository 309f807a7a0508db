"""Data sets of torchvision by name, on small files in their formats from a local web server."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets import utils

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.task import build_task
from inspector.training.torchvision_data import load_torchvision
from inspector.training.torchvision_sets import offered
from tests.file_server import idx, md5

pytestmark = pytest.mark.usefixtures("kept")

RANDOM = np.random.default_rng(0)
Site = tuple[Path, str]


@pytest.fixture
def fashion(site: Site, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """FashionMNIST of forty training and eight test images."""
    folder, address = site
    resources, parts = [], {}
    for part, count in (("train", 40), ("t10k", 8)):
        images = RANDOM.integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        parts[part] = images, labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte.gz"
            (folder / name).write_bytes(idx(array))
            resources.append((name, md5((folder / name).read_bytes())))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
    return parts["train"]


def test_a_set_is_downloaded_once_with_progress(
    fashion: tuple[np.ndarray, np.ndarray], site: Site, kept: Path
) -> None:
    told: list[str] = []
    original = utils._urlretrieve
    made = load_torchvision("FashionMNIST", {}, lambda text, _: told.append(text))
    assert made.inputs.dtype == torch.uint8
    assert made.inputs.tolist() == fashion[0][:, None].tolist()
    assert made.targets.tolist() == fashion[1].tolist()
    assert made.class_names[0] == "T-shirt/top"
    assert any("Downloading train-images-idx3-ubyte.gz" in text for text in told)
    assert told[-1] == "Reading FashionMNIST …"
    assert utils._urlretrieve is original
    for file in site[0].iterdir():
        file.unlink()
    assert len(load_torchvision("FashionMNIST", {})) == 40
    assert len(load_torchvision("FashionMNIST", {"train": False})) == 8
    assert not list(kept.rglob("*.part"))


@pytest.mark.usefixtures("fashion")
def test_a_limit_takes_samples_from_everywhere() -> None:
    made = load_torchvision("FashionMNIST", {"limit": 4, "pixels": 14})
    assert made.targets.tolist() == [0, 3, 6, 9]
    assert made.shape == (1, 14, 14)


def test_it_trains_normalised_by_the_training_part(
    fashion: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    config = RunConfig(
        data="torchvision:FashionMNIST", normalize=True, steps=3, batch_size=8, torch_threads=1
    )
    task = build_task(config)
    trained = fashion[0].astype(np.float64)[task.train_set.rows.numpy()] / 255
    assert len(trained) == 32
    assert task.scale is not None
    assert task.scale.mean.item() == pytest.approx(trained.mean(), rel=1e-5)
    assert task.scale.std.item() == pytest.approx(trained.std(), rel=1e-2)
    name = runner.start(config, tmp_path / "runs")
    assert runner.join(60)
    assert name.startswith("mlp-torchvision-FashionMNIST")
    with Run(tmp_path / "runs" / name) as run:
        assert run.status == "finished"
        assert len(run.series("loss").steps) == 3


def test_colour_pictures_come_from_their_archive(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    images = RANDOM.integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    labels = {b"a": [3, 1, 2, 0]}
    members = {
        "train": {"data": images.reshape(4, -1), "fine_labels": labels[b"a"]},
        "meta": {"fine_label_names": [f"kind {place}" for place in range(5)]},
    }
    buffer = io.BytesIO()
    sums = {}
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            data = pickle.dumps(content, protocol=2)
            sums[name] = hashlib.md5(data).hexdigest()
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (folder / "cifar.tar.gz").write_bytes(buffer.getvalue())
    cls = datasets.CIFAR100
    monkeypatch.setattr(cls, "url", address + "cifar.tar.gz")
    monkeypatch.setattr(cls, "filename", "cifar.tar.gz")
    monkeypatch.setattr(cls, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(cls, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(cls, "test_list", [])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": sums["meta"]})
    made = load_torchvision("CIFAR100", {})
    assert made.inputs.tolist() == images.tolist()
    assert made.targets.tolist() == [3, 1, 2, 0]
    assert made.class_names == tuple(f"kind {place}" for place in range(5))


def test_house_numbers_have_no_names(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat = pytest.importorskip("scipy.io").savemat

    folder, address = site
    images = RANDOM.integers(0, 256, (32, 32, 3, 5)).astype(np.uint8)
    savemat(folder / "extra.mat", {"X": images, "y": np.array([[10], [1], [2], [1], [3]])})
    entry = [address + "extra.mat", "extra.mat", md5((folder / "extra.mat").read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", {**datasets.SVHN.split_list, "extra": entry})
    made = load_torchvision("SVHN", {"split": "extra"})
    assert made.inputs.tolist() == images.transpose(3, 2, 0, 1).tolist()
    assert made.targets.tolist() == [0, 1, 2, 1, 3]
    assert made.class_names == ("0", "1", "2", "3")


@pytest.fixture
def extended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMNIST: one archive for all its splits."""
    folder, address = site
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for part, count in (("train", 6), ("test", 3)):
            for kind, array in (("images-idx3", RANDOM.integers(0, 256, (count, 28, 28))),
                                ("labels-idx1", np.arange(count) + 1)):  # fmt: skip
                archive.writestr(f"gzip/emnist-letters-{part}-{kind}-ubyte.gz", idx(array))
    monkeypatch.setattr(datasets.EMNIST, "url", address + "gzip.zip")
    monkeypatch.setattr(datasets.EMNIST, "md5", md5((folder / "gzip.zip").read_bytes()))


@pytest.mark.usefixtures("extended")
def test_a_split_is_asked_for_where_there_is_no_usual_one() -> None:
    split, train, *_ = offered("EMNIST")
    assert (split.name, split.required, "letters" in split.choices) == ("split", True, True)
    assert (train.name, train.kind, train.default) == ("train", "bool", True)
    with pytest.raises(ConfigError, match=r"EMNIST needs split \(one of byclass, .*in data_args"):
        load_torchvision("EMNIST", {})
    with pytest.raises(ConfigError, match=r"split of .*EMNIST must be one of .*but got 'all'"):
        load_torchvision("EMNIST", {"split": "all"})
    assert load_torchvision("EMNIST", {"split": "letters"}).targets.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(load_torchvision("EMNIST", {"split": "letters", "train": False})) == 3


def test_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(
        DataError,
        match=r"^Cannot download train-images-idx3-ubyte.gz for torchvision:KMNIST from 127.0.0.1: "
        r"the connection was refused; connect to the internet, or put that file in "
        rf"{re.escape(str(kept))}.*KMNIST.raw, or choose data that needs no download, such as "
        r"digits\.$",
    ):
        load_torchvision("KMNIST", {})
    assert not [path for path in kept.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["CocoDetection", "VOCSegmentation", "CelebA", "KittiFlow"])
def test_targets_that_are_no_classes_are_refused_before_a_download(name: str, kept: Path) -> None:
    with pytest.raises(ConfigError, match=f"Expected images with class numbers in .*{name}, but"):
        build_task(RunConfig(data=f"torchvision:{name}"))
    assert not kept.exists()


def test_targets_are_judged_by_the_samples_where_an_argument_decides(tmp_path: Path) -> None:
    """Animals: an image, a mask and a list, as they are unpacked; ``target_types`` chooses."""
    base = tmp_path / "pets" / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    (base / "images").mkdir()
    lines = []
    for place, (kind, size) in enumerate((("cat", (40, 30)), ("dog", (20, 50)))):
        name = f"{kind}_{place}"
        Image.new("RGB", size, (200, 10 * place, 0)).save(base / "images" / f"{name}.jpg")
        Image.new("L", size).save(base / "annotations" / "trimaps" / f"{name}.png")
        lines.append(f"{name} {place + 1} 1 1")
    (base / "annotations" / "trainval.txt").write_text("\n".join(lines))
    root = {"root": str(tmp_path / "pets")}
    with pytest.raises(DataError, match=r"OxfordIIITPet, but its targets are like <PIL"):
        load_torchvision("OxfordIIITPet", {**root, "target_types": "segmentation"})
    with pytest.raises(ConfigError, match=r"differ in size, such as 20×50 and 40×30; set pixels"):
        load_torchvision("OxfordIIITPet", root)
    made = load_torchvision("OxfordIIITPet", {**root, "pixels": 16})
    assert made.shape == (3, 16, 16)
    assert made.class_names == ("Cat", "Dog")
    assert made.inputs[0, 0].float().mean() == pytest.approx(200, abs=3)


@pytest.mark.parametrize(
    ("data", "args", "message"),
    [
        ("torchvision:FashonMNIST", {}, "no class named 'FashonMNIST'; take one such as"),
        ("torchvision:ImageFolder", {}, "choose folder:PATH"),
        ("torchvision:SVHN", {"train": True}, "SVHN has no argument 'train'; choose from split"),
        ("torchvision:MNIST", {"train": "yes"}, "train of data .*must be of type bool"),
        ("torchvision:MNIST", {"limit": -1}, "limit of data .*must be a number, 0 or greater"),
        ("torchvision:DTD", {"split": "all"}, r"refuses its arguments: Unknown value 'all'"),
    ],
)
def test_what_cannot_be_built_is_said(data: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task(RunConfig(data=data, data_args=args))


def test_files_that_are_damaged_are_named(kept: Path) -> None:
    raw = kept / "torchvision" / "KMNIST" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(struct.pack(">I", 0x803))
    with pytest.raises(DataError, match=r"KMNIST cannot be read from .*delete them"):
        load_torchvision("KMNIST", {})


def test_every_set_of_torchvision_is_offered_or_refused_in_a_sentence() -> None:
    answers: dict[str, list[str] | str] = {}
    for name in datasets.__all__:
        try:
            answers[name] = [one.name for one in offered(name)][-3:]
        except ConfigError as error:
            answers[name] = str(error)
    assert {name for name, answer in answers.items() if isinstance(answer, list)} >= {
        "MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "CIFAR10", "CIFAR100", "SVHN",
        "STL10", "USPS", "Food101", "Flowers102", "GTSRB", "EuroSAT", "Imagenette",
    }  # fmt: skip
    assert all(
        answer == ["pixels", "limit", "root"] or "." in answer for answer in answers.values()
    )
