"""Data sets of ``torchvision.datasets`` by name: which can be trained on, and their arguments."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from inspector.errors import ConfigError
from inspector.training.own.arguments import Argument, arguments

PREFIX = "torchvision:"
_INSTEAD = {"ImageFolder": "folder:PATH", "DatasetFolder": "folder:PATH", "FakeData": "fake_images",
            "LSUN": "folder:PATH", "LSUNClass": "folder:PATH"}  # fmt: skip
_TARGETS = {
    "boxes or captions": (
        "CocoCaptions", "CocoDetection", "Flickr8k", "Flickr30k", "Kitti", "SBU", "VOCDetection",
        "WIDERFace",
    ),
    "masks": ("Cityscapes", "SBDataset", "VOCSegmentation"),
    "attributes": ("CelebA",),
    "those of videos": ("HMDB51", "Kinetics", "MovingMNIST", "UCF101"),
    "those of pairs of images": ("LFWPairs", "PhotoTour"),
    "flow or disparity": (
        "CREStereo", "CarlaStereo", "ETH3DStereo", "FallingThingsStereo", "FlyingChairs",
        "FlyingThings3D", "HD1K", "InStereo2k", "Kitti2012Stereo", "Kitti2015Stereo", "KittiFlow",
        "Middlebury2014Stereo", "SceneFlowStereo", "Sintel", "SintelStereo",
    ),
}  # fmt: skip
"""What some sets have as targets; the others are judged by their first samples."""

_HIDDEN = ("root", "download", "transform", "target_transform", "transforms", "loader",
           "extensions", "is_valid_file", "allow_empty", "kwargs")  # fmt: skip
_CHOICES = ("splits", "split_list")
_OWN = (
    Argument("pixels", "int", 0, required=False,
             about="Crop and resize images to so many pixels on a side; 0 leaves them."),
    Argument("limit", "int", 0, required=False,
             about="Take so many samples, evenly spread; 0 takes all."),
    Argument("root", "str", "", required=False,
             about="Folder that holds the files already; empty for the app's own, where they are "
             "downloaded to."),
)  # fmt: skip


def offered(name: str) -> list[Argument]:
    """The arguments that can be given: the constructor's, then pixels, limit and root.

    Raises:
        ConfigError: torchvision has no such set, or none of classes.
    """
    found = constructor(find(name))
    return [*(one for one in found.values() if one.name not in _HIDDEN), *_OWN]


def find(name: str) -> type[Any]:
    """The class of that name.

    Raises:
        ConfigError: there is none, or its targets are not classes.
    """
    from torchvision import datasets

    cls = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not isinstance(cls, type) or name == "VisionDataset":
        raise ConfigError(
            f"torchvision.datasets has no class named {name!r}; take one such as FashionMNIST, "
            "CIFAR100 or SVHN, written as there."
        )
    if name in _INSTEAD:
        raise ConfigError(f"{PREFIX}{name} has an entry of its own here; choose {_INSTEAD[name]}.")
    for what, names in _TARGETS.items():
        if name in names:
            raise ConfigError(no_classes(name, what))
    return cls


def no_classes(name: str, got: str) -> str:
    """What is said of a set whose targets cannot be used."""
    return (
        f"Expected images with class numbers in {PREFIX}{name}, but its targets are {got}; choose "
        "a set for classification, or wrap it in a Dataset of your own (file:PATH:NAME)."
    )


def constructor(cls: type[Any]) -> dict[str, Argument]:
    """The arguments of a class; where it passes some on, those of the class above as well."""
    found: dict[str, Argument] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        for one in arguments(owner):
            found.setdefault(one.name, one)
        kinds = {one.kind for one in inspect.signature(vars(owner)["__init__"]).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    choices = next((tuple(getattr(cls, name)) for name in _CHOICES if hasattr(cls, name)), ())
    if choices and "split" in found:
        found["split"] = replace(found["split"], kind="choice", choices=choices)
    return found


def check(name: str, given: dict[str, Any], known: list[Argument]) -> None:
    """Raises ConfigError for an argument that is unknown, missing or has no usable value."""
    by_name = {one.name: one for one in known}
    data = f"{PREFIX}{name}"
    for key, value in given.items():
        if key not in by_name:
            raise ConfigError(
                f"Data {data} has no argument {key!r}; choose from {', '.join(by_name)}."
            )
        one = by_name[key]
        plain = {"int": int, "bool": bool, "str": str}.get(one.kind)
        wrong = plain and type(value) is not plain and not (one.optional and value is None)
        if one.choices and value not in one.choices:
            raise ConfigError(
                f"{key} of data {data} must be one of {', '.join(map(str, one.choices))}, "
                f"but got {value!r}."
            )
        if wrong or (key in ("pixels", "limit") and value < 0):
            wanted = "a number, 0 or greater" if plain is int else f"of type {one.kind}"
            raise ConfigError(f"{key} of data {data} must be {wanted}, but got {value!r}.")
    for one in known:
        if one.required and one.name not in given:
            which = f" (one of {', '.join(map(str, one.choices))})" if one.choices else ""
            raise ConfigError(f"Data {data} needs {one.name}{which} in data_args.")
