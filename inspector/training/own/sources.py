"""The data that a configuration names: a built-in source, a file, or the user's own Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inspector.catalog import OWN_FILES
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.training.data import load
from inspector.training.downloads import Progress
from inspector.training.own.arrays import load_arrays
from inspector.training.own.datasets import OwnLoaders, OwnSamples, load_own
from inspector.training.own.folders import load_folder
from inspector.training.own.reference import Loaded
from inspector.training.own.tables import load_table
from inspector.training.own.text import load_text
from inspector.training.samples import Source
from inspector.training.torchvision_data import load_torchvision
from inspector.training.transcription import Strips

AnySource = Source | Strips | OwnSamples | OwnLoaders


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: what reads it, and which of its arguments people set."""

    read: Callable[..., Source]
    hidden: tuple[str, ...] = ("path",)


FILES: dict[str, FileKind] = {
    "csv": FileKind(load_table, ("path", "form", "task")),
    "parquet": FileKind(load_table, ("path", "form", "task", "separator")),
    "npz": FileKind(load_arrays, ("path", "task")),
    "text": FileKind(load_text),
    "folder": FileKind(load_folder, ("path", "progress")),
}


def load_data(
    config: RunConfig, own: Loaded | None, task: str, progress: Progress | None = None
) -> AnySource:
    """The samples that ``config.data`` names.

    Args:
        own: what ``config.data`` refers to, if it is the user's own Python.
        task: of ``config``, or ``own`` where there is a training_step.

    Raises:
        ConfigError: the name or an argument is unknown.
        DataError: the samples cannot be found, read or used.
        Exception: whatever the user's own factory raises.
    """
    if own is not None:
        return load_own(own, config, task)
    form, _, path = config.data.partition(":")
    if form == "torchvision" and path:
        return load_torchvision(path, config.data_args, progress)
    if form not in OWN_FILES or not path:
        return load(config.data, config.data_args, progress)
    kind = FILES[form]
    accepted = inspect.signature(kind.read).parameters
    known = [name for name in accepted if name not in kind.hidden]
    _check_arguments(config, known, accepted)
    extra = {"form": form, "task": task, "progress": progress}
    given = {name: value for name, value in extra.items() if name in accepted}
    return kind.read(path, **given, **config.data_args)


def _check_arguments(config: RunConfig, known: list[str], accepted: Any) -> None:
    for name, value in config.data_args.items():
        if name not in known:
            raise ConfigError(
                f"Data {config.data} has no argument {name!r}; choose from {', '.join(known)}."
            )
        usual = type(accepted[name].default)
        lists = usual is tuple or name == "target"
        names = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (type(value) is usual or (lists and names) or (lists and isinstance(value, str))):
            wanted = "a list of names" if usual is tuple else usual.__name__
            raise ConfigError(
                f"{name} of data {config.data} must be of type {wanted}, but got {value!r}."
            )
