"""NPZ: arrays by name, without pickle, their sizes checked before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from inspector.catalog import Kind, Layout
from inspector.errors import ConfigError, DataError
from inspector.training.distribution import check_distributions
from inspector.training.own.files import MEMORY, local_file
from inspector.training.samples import Source

_INPUTS = ("x", "X", "inputs", "images", "data", "x_train", "X_train", "train_images")
_TARGETS = ("y", "Y", "targets", "labels", "y_train", "train_labels")
Array = np.ndarray[Any, Any]


def load_arrays(path: str, task: str, *, inputs: str = "", targets: str = "") -> Source:
    """Two arrays of a .npz file as samples; the first axis counts them.

    Args:
        inputs, targets: names of the arrays; the usual ones (x, y, images, labels) when left out.

    Raises:
        ConfigError: there is no array of that name.
        DataError: the file cannot be read safely, or the arrays do not suit each other.
    """
    file = local_file(path, "arrays", suffixes=(".npz",))
    headers = read_headers(file)
    if task == "transcription":
        raise ConfigError(
            "Arrays hold samples of one length; for the task transcription write a Dataset of "
            "your own that gives inputs and labels of any length."
        )
    x_name = _choose(inputs, _INPUTS, headers, file, "inputs")
    x = _read(file, x_name)
    if x.ndim < 2 and task != "sequence":
        raise DataError(
            f"Expected {x_name!r} in {file} to have an axis of samples and one of numbers, "
            f"but got shape {x.shape}."
        )
    if task == "reconstruction" and not targets:
        y, y_name = x, x_name
    else:
        y_name = _choose(targets, _TARGETS, headers, file, "targets")
        y = _read(file, y_name)
    if len(x) != len(y) or len(x) == 0:
        raise DataError(
            f"Expected as many inputs as targets in {file}, and one or more, but {x_name!r} has "
            f"{len(x)} and {y_name!r} has {len(y)}."
        )
    kind = cast(Kind, task) if task not in ("auto", "own") else _guess(x, y)
    tensor, layout = _inputs(x, x_name, file, kind)
    values, classes = _targets(y, y_name, file, kind)
    return Source(kind, layout, tensor, values, classes)


def read_headers(file: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array; nothing is unpacked but the headers.

    Raises:
        DataError: damaged, needs pickle, or larger than it may be.
    """
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            total = sum(record.file_size for record in archive.infolist())
            if total > MEMORY:
                raise DataError(
                    f"{file} unpacks to {total:,} bytes, more than the {MEMORY:,} that fit; "
                    "write a Dataset of your own that reads parts."
                )
            for record in archive.infolist():
                name = record.filename.removesuffix(".npy")
                with archive.open(record) as stream:
                    found[name] = _header(stream, record.file_size, f"{name!r} in {file}")
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{file} cannot be read as npz: {error}.") from error
    return found


def _header(stream: Any, size: int, what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(stream)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise DataError(f"{what} has no valid header of an array: {error}.") from error
    if dtype.hasobject:
        raise DataError(
            f"{what} holds Python objects, which only pickle can read and pickle can run code; "
            "save it as an array of numbers."
        )
    if math.prod(shape) * dtype.itemsize > size:
        raise DataError(
            f"{what} claims shape {shape} of {dtype}, but has {size:,} bytes; it is damaged."
        )
    return shape, dtype


def _read(file: Path, name: str) -> Array:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return cast(Array, arrays[name])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{name!r} in {file} cannot be read: {error}.") from error


def _choose(
    wanted: str, usual: tuple[str, ...], headers: dict[str, Any], file: Path, argument: str
) -> str:
    found = wanted or next((name for name in usual if name in headers), "")
    if found not in headers:
        described = ", ".join(f"{name} {shape}" for name, (shape, _) in list(headers.items())[:20])
        raise ConfigError(
            f"There is no array {wanted or ' or '.join(usual[:4])!r} in {file.name}; "
            f"set {argument} to one of {described or 'none (it is empty)'}."
        )
    return found


def _guess(x: Array, y: Array) -> Kind:
    whole = y.dtype.kind in "iub"
    if whole and y.ndim == 1:
        return "classification"
    if whole and y.shape == x.shape and y.ndim == 2 and x.dtype.kind in "iu":
        return "sequence"
    if whole and y.ndim == 3:
        return "per_pixel"
    if whole and y.ndim == 2 and y.shape[1] > 1 and y.max(initial=0) <= 1 and y.min(initial=0) >= 0:
        return "multi_label"
    return "regression"


def _inputs(x: Array, name: str, file: Path, kind: Kind) -> tuple[Tensor, Layout]:
    if x.dtype.kind not in "iufb":
        raise DataError(f"Expected numbers in {name!r} of {file}, but got {x.dtype}.")
    if kind == "sequence":
        return torch.from_numpy(x.astype(np.int64)), "tokens"
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        x = x.transpose(0, 3, 1, 2)  # channels last, as image libraries have them
    if x.ndim == 3 and x.dtype == np.uint8:
        x = x[:, None]
    layouts: dict[int, Layout] = {2: "table", 3: "sequence", 4: "image"}
    if x.dtype == np.uint8 and x.ndim == 4:
        return torch.from_numpy(np.ascontiguousarray(x)), "image"
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(x, dtype=np.float32)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        place = tuple(int(index) for index in wrong[0])
        raise DataError(
            f"{name!r} in {file}, row {place[0]}: expected finite numbers, but got "
            f"{values[place]} at {place} ({len(wrong):,} such numbers)."
        )
    return torch.from_numpy(values), layouts.get(x.ndim, "other")


def _targets(y: Array, name: str, file: Path, kind: Kind) -> tuple[Tensor, tuple[str, ...]]:
    axes = {"classification": (1,), "sequence": (2,), "per_pixel": (3,), "multi_label": (2,),
            "distribution": (2,)}  # fmt: skip
    if kind in axes and y.ndim not in axes[kind]:
        raise DataError(
            f"Expected {axes[kind][0]} axes in {name!r} of {file} for {kind}, "
            f"but got shape {y.shape}."
        )
    if kind in ("classification", "sequence", "per_pixel"):
        rounded = y.astype(np.int64) if y.dtype.kind in "iufb" else None
        if rounded is None or bool((rounded != y).any()):
            raise DataError(f"Expected class numbers in {name!r} of {file}, but got {y.dtype}.")
        wrong = np.argwhere(rounded < 0)
        if len(wrong):
            row = int(wrong[0][0])
            raise DataError(
                f"{name!r} in {file}, row {row}: expected classes from 0 on, but got "
                f"{rounded[tuple(wrong[0])]} ({len(wrong):,} such labels); renumber them."
            )
        count = int(rounded.max()) + 1
        if count > max(len(y), 100_000):
            row = int(np.argmax(rounded.reshape(len(y), -1).max(axis=1)))
            raise DataError(
                f"{name!r} in {file}, row {row}: label {count - 1} for {len(y)} samples; "
                "choose the task regression, or renumber the classes from 0."
            )
        return torch.from_numpy(rounded), tuple(str(label) for label in range(count))
    numbers = np.ascontiguousarray(y, dtype=np.float32)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        raise DataError(f"{name!r} in {file}, row {int(wrong[0][0])}: expected a finite number.")
    if kind == "distribution":
        check_distributions(torch.from_numpy(numbers), f"{name!r} in {file}")
        return torch.from_numpy(numbers), tuple(map(str, range(numbers.shape[1])))
    if kind == "multi_label":
        wrong = np.argwhere((numbers != 0) & (numbers != 1))
        if len(wrong):
            raise DataError(f"{name!r} in {file}, row {int(wrong[0][0])}: expected labels 0 or 1.")
        names = tuple(f"label {place}" for place in range(numbers.shape[1]))
        return torch.from_numpy(numbers), names
    return torch.from_numpy(numbers[:, None] if numbers.ndim == 1 else numbers), ()
