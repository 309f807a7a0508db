"""Weights from a file: read without running anything, compared with the model before they are used.

``.safetensors`` is compared by its header; of ``.pt`` and ``.pth`` only tensors are read
(``weights_only``), and a tensor that claims more elements than its storage holds is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inspector.errors import ModelError
from inspector.training.own.files import local_file

SUFFIXES = (".pt", ".pth", ".safetensors")
_LARGEST = 64 << 30
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 6

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Weights of a file beside those of a model.

    Attributes:
        fitting: names in both, of the same shape.
        missing: names that only the model has.
        unexpected: names that only the file has.
        different: name, shape in the model and shape in the file, where they differ.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    different: tuple[tuple[str, Shape, Shape], ...]

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.different)

    def sentence(self) -> str:
        """What differs, with the first few names of each kind."""
        shapes = [f"{name} {mine} in the model, {theirs} in the file"
                  for name, mine, theirs in self.different]  # fmt: skip
        parts = [
            f"{len(names)} {word} ({', '.join(names[:_SHOWN])}{', …' * (len(names) > _SHOWN)})"
            for word, names in (
                ("missing", list(self.missing)),
                ("unexpected", list(self.unexpected)),
                ("of another shape", shapes),
            )
            if names
        ]
        return "; ".join(parts)


def load_weights(model: nn.Module, path: str, *, partial: bool = False) -> Comparison:
    """Copies the weights of a file into a model.

    Args:
        partial: take what fits, and leave the rest of the model as it was initialised.

    Raises:
        ModelError: the file cannot be read safely, or does not fit the model.
    """
    state = read_weights(path)
    compared = compare(model, state)
    if not compared.fitting:
        raise ModelError(
            f"Expected weights for {type(model).__name__} in {path}, but none fits: "
            f"{compared.sentence()}; choose another file or model."
        )
    if not (partial or compared.complete):
        raise ModelError(
            f"The weights in {path} do not fit {type(model).__name__}: {compared.sentence()}; "
            f"set weights_partial to take the {len(compared.fitting)} that fit."
        )
    own = model.state_dict()
    with torch.no_grad():
        for name in compared.fitting:
            own[name].copy_(state[name])
    return compared


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Comparison:
    """Names and shapes of both; no tensor is computed with."""
    own = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    both = [name for name in own if name in state]
    return Comparison(
        fitting=tuple(name for name in both if tuple(state[name].shape) == own[name]),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        different=tuple(
            (name, own[name], tuple(state[name].shape))
            for name in both
            if tuple(state[name].shape) != own[name]
        ),
    )


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        ModelError: it is no file of weights, holds other than tensors, or lies about their sizes.
    """
    file = local_file(path, "weights", suffixes=SUFFIXES, largest=_LARGEST, error=ModelError)
    found = _safetensors(file) if file.suffix == ".safetensors" else _torch(file)
    bare = {_bare(name): value for name, value in found.items()}
    for name, value in bare.items():
        _refuse_view(name, value, file)
    return bare


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is not a valid safetensors file: {error}.") from error


def _torch(file: Path) -> dict[str, Tensor]:
    _refuse_bomb(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"Expected only tensors in {file}, but it wants to run code while it is read "
            f"({_cause(error)}); nothing was run. Save model.state_dict() instead."
        ) from error
    except Exception as error:  # a damaged archive raises nearly anything
        raise ModelError(f"{file} cannot be read as PyTorch weights: {_cause(error)}.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"Expected a state_dict in {file}, but got a {type(content).__name__}; "
            "save model.state_dict()."
        )
    return {str(name): value for name, value in content.items() if name != "_metadata"}


def _refuse_bomb(file: Path) -> None:
    """torch.save stores its records as they are: a packed archive is not from there."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ModelError(f"{file} is damaged: {error}.") from error
    if unpacked > file.stat().st_size:
        raise ModelError(
            f"{file} claims {unpacked:,} bytes in a file of {file.stat().st_size:,}; "
            "PyTorch does not write such files, so it is not opened."
        )


def _refuse_view(name: str, value: Any, file: Path) -> None:
    if not isinstance(value, Tensor):
        raise ModelError(
            f"Expected tensors in {file}, but {name!r} is a {type(value).__name__}; "
            "save model.state_dict()."
        )
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ModelError(f"Expected plain dense tensors in {file}, but {name!r} is {value.layout}.")
    held = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > held:
        raise ModelError(
            f"{name!r} in {file} claims {value.numel():,} elements in a storage of {held:,} "
            "bytes; the file is damaged or malicious."
        )


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Unsupported" in line or "GLOBAL" in line or "global" in line]
    return ((told or lines or [type(error).__name__])[0])[:200].rstrip(". ")
