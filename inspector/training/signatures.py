"""Arguments given as a dict, checked against the signature of what they are for."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

from inspector.errors import ConfigError

_PLAIN = (bool, int, float, str)


def check_arguments(
    target: Callable[..., Any],
    given: dict[str, Any],
    *,
    setting: str,
    name: str,
    reserved: Collection[str] = (),
) -> None:
    """Raises ConfigError for an argument that ``target`` does not have, or of another type.

    Args:
        setting: where the arguments were given, such as ``optimizer_args``.
        name: of what they are for, in words.
        reserved: arguments that cannot be given here.
    """
    accepted = {
        key: parameter
        for key, parameter in inspect.signature(target).parameters.items()
        if key not in reserved and key != "self"
    }
    for key, value in given.items():
        if key not in accepted:
            raise ConfigError(
                f"{name} has no argument {key!r} to set in {setting}; "
                f"choose from {', '.join(accepted) or 'none'}."
            )
        kinds = _kinds(target, accepted[key])
        if kinds and not _fits(value, kinds):
            wanted = " or ".join(_word(kind) for kind in kinds)
            raise ConfigError(f"{setting}.{key} must be {wanted}, but got {value!r:.80}.")


def _kinds(target: Any, parameter: inspect.Parameter) -> tuple[type, ...]:
    """The types that a parameter takes by its annotation, else by its default; empty: unknown."""
    owner = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        hint = typing.get_type_hints(owner).get(parameter.name)
    except (NameError, TypeError):
        hint = None
    if hint is None:
        default = parameter.default
        return (type(default),) if type(default) in _PLAIN else ()
    parts = typing.get_args(hint) if _is_union(hint) else (hint,)
    kinds = [typing.get_origin(part) or part for part in parts]
    return tuple(kind for kind in kinds if isinstance(kind, type)) if Any not in parts else ()


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _fits(value: Any, kinds: Collection[type]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int) and float in kinds:
        return True
    if isinstance(value, (list, tuple)) and {tuple, list, Tensor} & set(kinds):
        return True
    return isinstance(value, tuple(kinds))


def _word(kind: type) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word",
             types.NoneType: "nothing"}  # fmt: skip
    lists = (tuple, list, Tensor)
    return "a list of numbers" if kind in lists else words.get(kind, kind.__name__)
