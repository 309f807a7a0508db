"""MNIST, Fashion-MNIST and CIFAR-10: fetched from where torchvision fetches them, then read.

Files are kept in ``TORCH_INSPECTOR_DATA`` (default ``~/.cache/torch-inspector/data``), named as at
their source; a file put there by hand is used as it is.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
from numpy.typing import NDArray

from inspector.errors import DataError

Progress = Callable[[str, float], None]
"""Called with a sentence and the share that is done, 0 to 1, a few times a second."""

_BLOCK = 1 << 18
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Images:
    """uint8 images [n, channels, height, width] and int64 labels [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


def folder() -> Path:
    """Where downloaded files are kept."""
    chosen = os.environ.get("TORCH_INSPECTOR_DATA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "torch-inspector" / "data"


def mnist(name: str, progress: Progress | None = None) -> Images:
    """The training part of torchvision's ``MNIST`` or ``FashionMNIST``.

    Raises:
        DataError: a file can be neither found nor downloaded, or is damaged.
    """
    from torchvision import datasets

    origin = getattr(datasets, name)
    read = []
    for file, md5 in origin.resources[:2]:  # the training part: images, labels
        urls = [mirror + file for mirror in origin.mirrors]
        read.append(read_idx(fetch(urls, folder() / name / file, md5, progress)))
    images, labels = read
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"Expected as many images as labels in {folder() / name}, but got shapes "
            f"{images.shape} and {labels.shape}; delete the folder and start again."
        )
    return Images(images[:, None], labels.astype(np.int64), tuple(origin.classes))


def cifar10(progress: Progress | None = None) -> Images:
    """The training part of CIFAR-10.

    Raises:
        DataError: the file can be neither found nor downloaded, or is damaged.
    """
    from torchvision import datasets

    origin = datasets.CIFAR10
    path = fetch([origin.url], folder() / origin.filename, origin.tgz_md5, progress)
    images, labels = [], []
    try:
        with tarfile.open(path) as archive:
            for file, _ in origin.train_list:
                batch = _unpickle(archive, f"{origin.base_folder}/{file}")
                images.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
                labels.append(np.asarray(batch["labels"], np.int64))
            meta = _unpickle(archive, f"{origin.base_folder}/{origin.meta['filename']}")
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, pickle.PickleError) as error:
        raise _damaged(path, error) from error
    names = tuple(str(name) for name in meta[origin.meta["key"]])
    return Images(np.concatenate(images), np.concatenate(labels), names)


def fetch(
    urls: Sequence[str],
    path: Path,
    digest: str,
    progress: Progress | None = None,
    *,
    algorithm: str = "md5",
    otherwise: str = "choose data that needs no download, such as digits",
) -> Path:
    """``path``, downloaded from the first of ``urls`` that answers unless it is there already.

    Args:
        digest: what the hexadecimal checksum must begin with.
        otherwise: what can be done without a connection.

    Raises:
        DataError: no address answered with the file of that checksum, or there is no place for it.
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"Expected a folder for data that can be written at {path.parent}, but got: "
            f"{error.strerror}; set TORCH_INSPECTOR_DATA to another."
        ) from error
    reasons = []
    for url in urls:
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            received = receive(urllib.request.Request(url), partial, progress, algorithm)
            if received.startswith(digest):
                return partial.replace(path)
            name = algorithm.upper()
            reasons.append(f"{url}: expected {name} {digest}, but got {received}")
        except (OSError, ValueError) as error:
            reasons.append(f"{url}: {reason(error)}")
        finally:
            partial.unlink(missing_ok=True)
    raise DataError(
        f"Cannot download {path.name} ({'; '.join(reasons)}); connect to the internet, or put the "
        f"file at {path}, or {otherwise}."
    )


def reason(error: Exception) -> str:
    """Why nothing was received, in words; what else went wrong, as it says itself."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}".rstrip()
    if isinstance(cause, socket.gaierror):
        return "the server's name cannot be looked up: this machine seems to be offline"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(cause, TimeoutError):
        return "the server did not answer in time"
    text = (getattr(cause, "strerror", None) or str(cause)).strip().rstrip(".")
    return " ".join(text.split())[:300] or type(error).__name__


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of an IDX file (gzipped or not) as an array of the shape it declares.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if zeros != 0 or kind != 8:
            raise ValueError("it does not begin like an IDX file of bytes")
        return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise _damaged(path, error) from error


def receive(
    request: urllib.request.Request,
    path: Path,
    progress: Progress | None = None,
    algorithm: str = "md5",
) -> str:
    """Writes the answer to ``path``; its checksum, hexadecimal.

    Raises:
        OSError: nothing answered, or the answer ended early.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    name = request.full_url.rsplit("/", 1)[-1]
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        done = 0
        while block := answer.read(_BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            if progress is not None:
                share = min(done / total, 1.0) if total else 0.0
                progress(f"Downloading {name}: {done / 1e6:.1f} MB", share)
    return digest.hexdigest()


class _ArraysOnly(pickle.Unpickler):
    """A pickle can run any code; these need three names of NumPy's."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            from numpy._core import multiarray

            return getattr(multiarray, name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


def _unpickle(archive: tarfile.TarFile, member: str) -> dict[str, Any]:
    file = archive.extractfile(member)
    if file is None:
        raise KeyError(member)
    content = _ArraysOnly(io.BytesIO(file.read()), encoding="latin1").load()
    if not isinstance(content, dict):
        raise ValueError(f"{member} holds a {type(content).__name__}, not a dict")
    return content


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged ({error}); delete it, and it will be downloaded again.")
