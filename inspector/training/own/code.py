"""Everything of the user's own Python that a configuration refers to, executed once for a run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.training.own.reference import Loaded, is_code, load, one_reading

FOLDER = "source"


class Sources(dict[str, str]):
    """Texts by the names of their files.

    Attributes:
        origins: where each of the files lies; none for typed code.
    """

    origins: dict[str, str]

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        super().__init__(texts or {})
        self.origins = {}

    @classmethod
    def of(cls, found: list[Loaded]) -> Sources:
        """Of several references; where two have a file of one name, the first counts."""
        made = cls()
        for loaded in reversed(found):
            made |= loaded.sources
            made.origins |= loaded.origins
        return made


@dataclass(frozen=True, slots=True)
class OwnCode:
    """What was found.

    Attributes:
        step, validation_step: ``training_step(model, batch)`` and ``validation_step``, if any.
        sources: the texts that were executed, by the names of their files.
    """

    model: Loaded | None = None
    data: Loaded | None = None
    step: Callable[..., Any] | None = None
    validation_step: Callable[..., Any] | None = None
    sources: Sources = field(default_factory=Sources)


def find_own(config: RunConfig) -> OwnCode:
    """Executes the sources that model and data refer to.

    A ``training_step`` of the model's source counts first, then one of the data's.

    Raises:
        ConfigError: a source cannot be loaded, or the task is ``own`` and there is no step.
    """
    with one_reading():
        model = load(config.model, config.code) if is_code(config.model) else None
        data = load(config.data, config.code) if is_code(config.data) else None
    found = [loaded for loaded in (model, data) if loaded is not None]
    step = _function("training_step", found) if config.task in ("auto", "own") else None
    if config.task == "own" and step is None:
        raise ConfigError(
            "The task own needs a function training_step(model, batch) in the source of the model "
            "or of the data, but there is none; add it, or choose another task."
        )
    validation_step = _function("validation_step", found) if step else None
    for function in (step, validation_step):
        _check_signature(function)
    return OwnCode(model, data, step, validation_step, Sources.of(found))


def keep(sources: dict[str, str], run_path: Path) -> None:
    """Writes the sources of a run into its ``blobs/source``, and where they are from beside it."""
    origins = getattr(sources, "origins", None)
    if origins:
        path = run_path / "blobs" / f"{FOLDER}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(origins, indent=1), "utf-8")
    for name, text in sources.items():
        path = run_path / "blobs" / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _check_signature(function: Callable[..., Any] | None) -> None:
    """Raises ConfigError where a function cannot be called with the model and a batch."""
    if function is None:
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not known, such as of a function in C
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        name = getattr(function, "__name__", "the step")
        raise ConfigError(
            f"Expected {name}(model, batch), but it is {name}{signature}: {error}; give further "
            "parameters a default."
        ) from error


def _function(name: str, found: list[Loaded]) -> Callable[..., Any] | None:
    values = (getattr(loaded.module, name, None) for loaded in found)
    return next((value for value in values if callable(value)), None)
