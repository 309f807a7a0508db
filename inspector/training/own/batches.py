"""What a batch is: which task it is for, and what the loop needs it to look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import default_collate

from inspector.catalog import Kind, Layout
from inspector.errors import ConfigError
from inspector.training.transcription import Transcripts

_CLASSES: tuple[Kind, ...] = ("classification", "sequence", "per_pixel")


def is_pair(batch: Any) -> bool:
    """Whether a batch is inputs and targets, and nothing else."""
    return (
        isinstance(batch, (tuple, list))
        and len(batch) == 2
        and all(isinstance(part, Tensor) for part in batch)
    )


def is_transcribed(batch: Any) -> bool:
    """Whether a batch is inputs and labels of different lengths."""
    return (
        isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Transcripts)
    )


def collate(samples: Any) -> Any:
    """PyTorch's default, which also takes the images of Pillow that torchvision's data sets give.

    They become float32 [channels, height, width] in [0, 1].
    """
    return default_collate([_tensors(sample) for sample in samples])


def _tensors(value: Any) -> Any:
    if isinstance(value, Image):
        from torchvision.transforms.v2 import functional as F

        return F.to_dtype(F.pil_to_tensor(value), torch.float32, scale=True)
    if type(value) in (tuple, list):
        return type(value)(_tensors(part) for part in value)
    if type(value) is dict:
        return {key: _tensors(part) for key, part in value.items()}
    return value


def guess_kind(batch: Any, wanted: str) -> Kind:
    """The task that a batch is for.

    Raises:
        ConfigError: it is not inputs and targets, and there is no training_step to take it.
    """
    if wanted == "own":
        return "own"
    if is_transcribed(batch):
        return "transcription"
    if wanted == "transcription":
        raise ConfigError(
            "For the task transcription a batch is inputs and Transcripts (labels, label_lengths, "
            f"input_lengths), but this one is {describe(batch)}; leave collate_fn out, and give "
            "samples of inputs and labels."
        )
    if not is_pair(batch):
        raise ConfigError(
            f"Expected samples of inputs and targets, but a batch is {describe(batch)}; define "
            "training_step(model, batch) in the same file, or return two tensors."
        )
    if wanted not in ("auto", "reconstruction"):
        return cast(Kind, wanted)
    inputs, targets = batch
    if targets.is_floating_point():
        same = targets.ndim > 2 and targets.shape == inputs.shape
        return "reconstruction" if same else "regression"
    if targets.ndim == 1:
        return "classification"
    if targets.ndim == 2 and not inputs.is_floating_point() and inputs.shape == targets.shape:
        return "sequence"
    if targets.ndim == 2:
        return "multi_label"
    return "per_pixel"


def adapt(batch: Any, kind: Kind) -> Any:
    """Inputs as float32 (bytes scaled to [0, 1]) and targets as the losses want them."""
    if kind == "own" or not (is_pair(batch) or is_transcribed(batch)):
        return batch
    inputs, targets = batch
    if inputs.dtype == torch.uint8:
        inputs = inputs.float() / 255
    elif inputs.is_floating_point():
        inputs = inputs.float()
    elif inputs.dtype != torch.int64:
        inputs = inputs.long()
    if kind == "transcription":
        return inputs, targets
    if kind in _CLASSES:
        targets = targets.long()
        if kind == "classification" and targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        if kind == "per_pixel" and targets.ndim == 4 and targets.shape[1] == 1:
            targets = targets[:, 0]
    else:
        targets = targets.float()
        if targets.ndim == 1:
            targets = targets[:, None]
    return inputs, targets


class Adapting:
    """A user's collate function, followed by :func:`adapt`; can be sent to workers."""

    def __init__(self, collate: Any, kind: Kind) -> None:
        self.collate, self.kind = collate, kind

    def __call__(self, samples: Any) -> Any:
        return adapt(self.collate(samples), self.kind)


def layout_of(inputs: Tensor) -> Layout:
    """The layout that a batch of inputs has."""
    shape = inputs.shape[1:]
    if not inputs.is_floating_point() and inputs.dtype != torch.uint8:
        return "tokens" if len(shape) == 1 else "other"
    if len(shape) == 3 and shape[0] <= 4:
        return "image"
    layouts: dict[int, Layout] = {1: "table", 2: "sequence"}
    return layouts.get(len(shape), "other")


def size_of(batch: Any) -> int:
    """Number of samples: the length of the first tensor found; 0 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(parts, (str, bytes)) or not hasattr(parts, "__iter__"):
        return 0
    return next((size for part in parts if (size := size_of(part))), 0)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def describe(value: Any) -> str:
    """What a batch is made of, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, list(value)[:8]))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
