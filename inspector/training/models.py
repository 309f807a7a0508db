"""Models by name or reference: sample, torchvision's and the user's own, sized to fit the data."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from types import ModuleType
from typing import Any, Protocol, cast

from torch import nn

from inspector import catalog
from inspector.catalog import Kind, Layout
from inspector.config import RunConfig
from inspector.errors import ConfigError, ModelError
from inspector.training.downloads import Progress
from inspector.training.initialisation import initialise
from inspector.training.own.arguments import arguments, takes_anything
from inspector.training.own.reference import Loaded
from inspector.training.own.weights import load_weights
from inspector.training.pretrained import PREFIX, load_pretrained
from inspector.training.replacing import replace_modules

_Pair = tuple[int, int]
_SMALLEST_IMAGE = {"alexnet": 64, "inception_v3": 75, "vit": 224, "maxvit": 224}
_SMALLEST_IMAGE_OTHERWISE = 32
_EXTRA_ARGS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class Sized(Protocol):
    """What a model has to know of the data."""

    @property
    def kind(self) -> Kind: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def outputs(self) -> int: ...


def build_model(
    config: RunConfig,
    source: Sized,
    own: Loaded | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """The model that ``config`` names, on the CPU, with sizes and first weights filled in.

    Args:
        own: what ``config.model`` refers to, if it is the user's own.
        progress: told how far a download of weights is.

    Raises:
        DataError: weights cannot be downloaded.
        ConfigError: the name, an argument or a type to initialise is unknown.
        ModelError: the model cannot be trained on such data, or the weights do not fit it.
        Exception: whatever the model's own constructor raises.
    """
    if own is not None:
        model = _own(config, source, own)
    else:
        misfit = catalog.suits(config.model, config.data, source.layout, source.kind, source.shape)
        if misfit:
            raise ModelError(misfit)
        torchvision = config.model.startswith("torchvision:")
        model = _torchvision(config, source) if torchvision else _sample_model(config, source)
    replace_modules(model, config.replace)
    initialise(model, config.init)
    if config.weights.startswith(PREFIX):
        load_pretrained(model, config.model, config.weights, progress)
    elif config.weights:
        load_weights(model, config.weights, partial=config.weights_partial)
    return model


def sizes_of(source: Sized) -> dict[str, int]:
    """Constructor arguments that the data determines, by the names models use for them."""
    sizes: dict[str, int] = {}
    if source.outputs:
        sizes = {"num_classes": source.outputs, "out_features": source.outputs}
    if source.layout in ("image", "strip"):
        sizes |= {"in_channels": source.shape[0], "image_size": source.shape[1]}
    if source.layout == "tokens":
        return sizes | {"sequence_length": source.shape[0], "vocab_size": source.outputs}
    if source.layout == "sequence":
        return sizes | {"sequence_length": source.shape[0], "in_features": source.shape[1]}
    return sizes | {"in_features": math.prod(source.shape)} if source.shape else sizes


def _sample_model(config: RunConfig, source: Sized) -> nn.Module:
    entry = catalog.MODELS.get(config.model)
    if entry is None:
        raise ConfigError(
            f"There is no model named {config.model!r}; choose one of "
            f"{', '.join(catalog.MODELS)}, torchvision:NAME, or file:PATH:NAME."
        )
    cls = getattr(_sample(entry.name), entry.cls)
    _refuse_unknown(config, set(inspect.signature(cls).parameters))
    model = cls(**arguments_for(cls, config, source))
    assert isinstance(model, nn.Module)
    return model


def arguments_for(cls: Any, config: RunConfig, source: Sized) -> dict[str, Any]:
    """What a model's class or factory is called with: sizes of the data, and ``model_args``."""
    names = {argument.name for argument in arguments(cls)}
    sizes = {name: size for name, size in sizes_of(source).items() if name in names}
    return {**sizes, **config.model_args}


def _own(config: RunConfig, source: Sized, own: Loaded) -> nn.Module:
    """A class or factory is called; a module that stands there ready is copied."""
    if isinstance(own.value, nn.Module):
        return copy.deepcopy(own.value)
    if not callable(own.value):
        raise ConfigError(
            f"Expected {config.model} to be a class, a function or a module, "
            f"but got a {type(own.value).__name__}."
        )
    known = arguments(own.value)
    names = {argument.name for argument in known}
    if not takes_anything(own.value):
        _refuse_unknown(config, names)
    given = arguments_for(own.value, config, source)
    absent = [
        argument.name for argument in known if argument.required and argument.name not in given
    ]
    if absent:
        raise ConfigError(
            f"{config.model} needs a value for {', '.join(absent)}, which has no default; "
            f"set model_args.{absent[0]}."
        )
    model = own.value(**given)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"Expected {config.model} to give a torch.nn.Module, but it gave a "
            f"{type(model).__name__}; name a Module class, or a function that returns one."
        )
    return model


def image_size(model: str, source: Sized) -> int:
    """The size to which images are enlarged for a model; 0 if they stay as they are."""
    if not model.startswith("torchvision:"):
        return 0
    name = model.partition(":")[2]
    fixed = name.startswith(("vit", "maxvit"))
    smallest = _SMALLEST_IMAGE.get(
        name, _SMALLEST_IMAGE.get(name.split("_")[0], _SMALLEST_IMAGE_OTHERWISE)
    )
    height, width = source.shape[1:]
    if fixed:
        return 0 if height == width == smallest else smallest
    return smallest if min(height, width) < smallest else 0


def _sample(name: str) -> ModuleType:
    try:  # in a wheel the sample models lie inside the package
        return importlib.import_module(f"inspector.bundle.sample_models.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"sample_models.{name}")


def _torchvision(config: RunConfig, source: Sized) -> nn.Module:
    import torchvision.models as zoo

    name = config.model.partition(":")[2]
    names = zoo.list_models(module=zoo)
    if name not in names:
        raise ConfigError(
            f"torchvision has no classification model named {name!r}; "
            f"choose one of {', '.join(names)}."
        )
    reserved = sorted({"weights", "num_classes"} & set(config.model_args))
    if reserved:
        raise ConfigError(
            f"{reserved[0]} of {config.model} is set by the data; remove it from model_args."
        )
    name, args = torchvision_arguments(config, source)
    model: nn.Module = zoo.get_model(name, weights=None, **args)
    _adapt_channels(model, config.model, source.shape[0])
    return model


def torchvision_arguments(config: RunConfig, source: Sized) -> tuple[str, dict[str, Any]]:
    """The name of torchvision's builder, and what it is called with besides ``weights``."""
    name = config.model.partition(":")[2]
    extra = _EXTRA_ARGS.get(name, {})
    return name, {"num_classes": source.outputs, **extra, **config.model_args}


def _adapt_channels(model: nn.Module, name: str, channels: int) -> None:
    """Replaces the first convolution by one for images of so many channels."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels == channels:
                return
            parent, _, attribute = path.rpartition(".")
            setattr(model.get_submodule(parent), attribute, _with_channels(module, channels))
            return
    raise ModelError(
        f"Expected a convolution at the beginning of {name} to take {channels} channels, "
        "but it has none; choose another model."
    )


def _with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        conv.out_channels,
        cast(_Pair, conv.kernel_size),
        cast(_Pair, conv.stride),
        cast(_Pair, conv.padding),
        bias=conv.bias is not None,
    )


def _refuse_unknown(config: RunConfig, accepted: set[str]) -> None:
    unknown = sorted(set(config.model_args) - accepted)
    if unknown:
        raise ConfigError(
            f"Model {config.model} has no argument {unknown[0]!r}; "
            f"choose from {', '.join(sorted(accepted))}."
        )
