"""Downloading and reading, on small files of the same formats served by a local web server."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from inspector.errors import DataError
from inspector.training import downloads
from inspector.training.data import load
from tests.file_server import idx, md5

pytestmark = pytest.mark.usefixtures("kept")

RANDOM = np.random.default_rng(0)


def test_mnist_is_fetched_once_with_progress(
    site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    images = RANDOM.integers(0, 256, (12, 28, 28))
    labels = np.arange(12) % 10
    contents = {"images.gz": idx(images), "labels.gz": idx(labels)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    resources = [(name, md5(content)) for name, content in contents.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address + "gone/", address])

    told: list[tuple[str, float]] = []
    source = load("mnist", {}, lambda text, share: told.append((text, share)))
    assert source.inputs.tolist() == images[:, None].tolist()
    assert source.targets.tolist() == labels.tolist()
    assert source.class_names[3] == "3 - three"
    assert "Downloading images.gz" in told[0][0]
    assert told[-1][1] == 1.0

    for name in contents:
        (folder / name).unlink()
    assert len(load("mnist", {"limit": 5}).inputs) == 5


def test_cifar_is_read_from_its_archive(
    site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    images = RANDOM.integers(0, 256, (10, 3, 32, 32)).astype(np.uint8)
    names = [f"thing {i}" for i in range(10)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for i in range(5):
            two = {"data": images[2 * i : 2 * i + 2].reshape(2, -1), "labels": [i, i + 1]}
            add(archive, f"cifar-10-batches-py/data_batch_{i + 1}", two)
        add(archive, "cifar-10-batches-py/batches.meta", {"label_names": names})
    (folder / "cifar.tar.gz").write_bytes(buffer.getvalue())
    monkeypatch.setattr(datasets.CIFAR10, "url", address + "cifar.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(buffer.getvalue()))

    source = load("cifar10", {})
    assert source.inputs.tolist() == images.tolist()
    assert source.targets.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert source.class_names == tuple(names)


def add(archive: tarfile.TarFile, name: str, content: Any) -> None:
    data = pickle.dumps(content, protocol=2)
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_a_pickle_that_runs_code_is_refused(
    site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, address = site
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (canary,)

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        add(archive, "cifar-10-batches-py/data_batch_1", Evil())
    (folder / "cifar.tar.gz").write_bytes(buffer.getvalue())
    monkeypatch.setattr(datasets.CIFAR10, "url", address + "cifar.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    with pytest.raises(DataError, match=r"is damaged \(it asks for"):
        load("cifar10", {})
    assert not canary.exists()


def test_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"Cannot download .*connect to the internet, or put the"):
        load("fashion_mnist", {})
    assert not [path for path in kept.rglob("*") if path.is_file()]


def test_a_wrong_file_is_not_kept(site: tuple[Path, str], kept: Path) -> None:
    folder, address = site
    (folder / "file").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"expected MD5 0000, but got [0-9a-f]{32}"):
        downloads.fetch([address + "file"], kept / "file", "0000")
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"not an idx file", idx(np.zeros((3, 2)))[:-12]],
    ids=["empty", "another file", "cut short"],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images is damaged .*delete it"):
        downloads.read_idx(path)


def test_a_place_that_cannot_be_written_is_told_from_a_lost_connection(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"written at .*; set TORCH_INSPECTOR_DATA"):
        downloads.fetch(["http://127.0.0.1:9/x"], tmp_path / "file" / "below" / "x", "0000")
