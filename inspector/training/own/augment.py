"""Augmentation: torchvision's transforms (v2), drawn anew for each sample of the training part.

Each draw of a sample has a seed of its own that comes with its row, so that the pictures depend
neither on loading processes nor on what else uses PyTorch's random numbers.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inspector.errors import ConfigError, DataError
from inspector.training.own.arguments import Argument, arguments, summary
from inspector.training.samples import Samples

CURATED = (
    "RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation", "RandomAffine",
    "RandomPerspective", "ElasticTransform", "RandomCrop", "RandomResizedCrop", "RandomErasing",
    "ColorJitter", "RandomGrayscale", "RandomInvert", "RandomAutocontrast", "RandomAdjustSharpness",
    "GaussianBlur", "GaussianNoise", "RandAugment", "AutoAugment", "TrivialAugmentWide", "AugMix",
)  # fmt: skip
"""Transforms that suit images of any data set, in the order in which they are offered."""

_WHOLE_BATCH = ("CutMix", "MixUp")
_SUGGESTED: dict[str, dict[str, Any]] = {
    "RandomRotation": {"degrees": 10},
    "RandomAffine": {"degrees": 10, "translate": [0.1, 0.1]},
    "ElasticTransform": {"alpha": 20.0, "sigma": 1.0},
    "RandomAdjustSharpness": {"sharpness_factor": 2.0},
    "GaussianBlur": {"kernel_size": 3},
    "ColorJitter": {"brightness": 0.3, "contrast": 0.3},
}


@dataclass(frozen=True, slots=True)
class Offer:
    """One transform, as a form offers it.

    Attributes:
        suggested: arguments that make a visible difference, for those that need some.
    """

    name: str
    about: str
    arguments: list[Argument]
    suggested: dict[str, Any]


def offer(name: str, side: int = 0) -> Offer:
    """What can be set of a transform; ``side`` is the height of the images, for sizes.

    Raises:
        ConfigError: torchvision has no such transform.
    """
    cls = _find(name)
    found = [_with_choices(argument) for argument in arguments(cls)]
    suggested = dict(_SUGGESTED.get(name, {}))
    if side and any(argument.name == "size" for argument in found):
        suggested["size"] = side
        if name == "RandomCrop":
            suggested["padding"] = max(side // 8, 1)
    return Offer(name, summary(cls), found, suggested)


def _with_choices(argument: Argument) -> Argument:
    if isinstance(argument.default, enum.Enum):
        choices = tuple(one.value for one in type(argument.default))
        return replace(argument, kind="choice", choices=choices, default=argument.default.value)
    if argument.name == "interpolation":
        return replace(argument, kind="choice", choices=("nearest", "bilinear"))
    return argument


class Augment:
    """Transforms in their order, applied to each sample of a batch by itself.

    Raises:
        ConfigError: an entry is no transform, or has arguments that it does not take.
    """

    def __init__(self, entries: Sequence[Any]) -> None:
        from torchvision.transforms import v2

        self.names = [str(_entry(entry)["name"]) for entry in entries]
        made = [_build(_entry(entry)) for entry in entries]
        self.transform = made[0] if len(made) == 1 else v2.Compose(made)

    def __call__(self, batch: Any, seeds: Sequence[int]) -> Any:
        """The batch with images changed; targets of the same height and width move with them.

        Raises:
            DataError: what comes out is no batch of float32 images.
        """
        inputs, targets = batch
        moved = targets.ndim >= 3 and targets.shape[-2:] == inputs.shape[-2:]
        images: list[Tensor] = []
        others: list[Tensor] = []
        with kept_random():
            for place, seed in enumerate(seeds):
                torch.default_generator.manual_seed(seed)
                image, target = self._one(inputs[place], targets[place] if moved else None)
                images.append(image)
                others += [] if target is None else [target]
        return _stack(images, self.names), _stack(others, self.names) if moved else targets

    def _one(self, image: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        from torchvision import tv_tensors

        wrapped = tv_tensors.Image(image)
        try:
            if target is None:
                return _plain(self.transform(wrapped), self.names), None
            kind = tv_tensors.Image if target.is_floating_point() else tv_tensors.Mask
            changed, other = self.transform(wrapped, kind(target))
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise DataError(
                f"{', '.join(self.names)} cannot take images of shape {tuple(image.shape)} with "
                f"numbers from 0 to 1 ({text}); change augment."
            ) from error
        return _plain(changed, self.names), other.as_subclass(Tensor)


def build_augment(entries: Sequence[Any], source: Samples, data: str) -> Augment | None:
    """The augmentation of the training part; None without entries.

    Raises:
        ConfigError: the samples are no images, or a transform or argument is unknown.
    """
    if not entries:
        return None
    if source.layout != "image":
        raise ConfigError(
            f"augment changes images, but {data} has layout {source.layout}; set augment to []."
        )
    return Augment(entries)


@contextlib.contextmanager
def kept_random() -> Iterator[None]:
    """PyTorch's random numbers on the CPU are afterwards as they were; CUDA's are not touched."""
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _entry(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ConfigError(
            "augment must be a list of dicts with the name of a transform and its arguments, "
            f"but one entry is {entry!r:.80}."
        )
    return entry


def _find(name: str) -> Any:
    from torchvision.transforms import v2

    cls = getattr(v2, name, None)
    if not (isinstance(cls, type) and issubclass(cls, v2.Transform)) or cls is v2.Transform:
        raise ConfigError(
            f"torchvision.transforms.v2 has no transform named {name!r}; "
            f"choose one of {', '.join(CURATED)}."
        )
    if name in _WHOLE_BATCH:
        raise ConfigError(
            f"{name} mixes the samples of a batch and their classes, which augment does not; "
            "apply it in a training_step of your own."
        )
    return cls


def _build(entry: dict[str, Any]) -> Any:
    name = entry["name"]
    cls = _find(name)
    given = {key: value for key, value in entry.items() if key != "name"}
    found = {argument.name: argument for argument in arguments(cls)}
    unknown = sorted(set(given) - set(found))
    if unknown:
        raise ConfigError(
            f"{name} has no argument {unknown[0]!r}; "
            f"choose from {', '.join(found) or 'none (it has no arguments)'}."
        )
    missing = [key for key, one in found.items() if one.required and key not in given]
    if missing:
        raise ConfigError(f"{name} needs a value for {', '.join(missing)}; add it to its entry.")
    for key, value in given.items():
        usual = found[key].default
        if isinstance(usual, enum.Enum) and isinstance(value, str):
            choices = [one.value for one in type(usual)]
            if value not in choices:
                raise ConfigError(
                    f"{key} of {name} must be one of {', '.join(choices)}, but got {value!r}."
                )
            given[key] = type(usual)(value)
    try:
        return cls(**given)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be made of {given}: {error}.") from error


def _plain(image: Any, names: list[str]) -> Tensor:
    if not isinstance(image, Tensor) or image.dtype != torch.float32:
        got = image.dtype if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise DataError(
            f"Expected {', '.join(names)} to give an image of float32, but got {got}; leave out "
            "conversions, images are tensors with numbers from 0 to 1 already."
        )
    return image.as_subclass(Tensor)


def _stack(images: list[Tensor], names: list[str]) -> Tensor:
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise DataError(
            f"{', '.join(names)} give images of different shapes ({shapes[0]} and {shapes[-1]}), "
            "which cannot be put into one batch; add Resize with a size of two numbers at the end."
        )
    return torch.stack(images)
