"""The arguments of a class or function, found by inspection: type, default and description."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

ArgumentKind = Literal["int", "float", "bool", "str", "choice", "json"]
_SIMPLE: dict[Any, ArgumentKind] = {int: "int", float: "float", bool: "bool", str: "str"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument.

    Attributes:
        kind: what a form offers for it; ``json`` is for lists, numbers or nothing, and so on.
        default: its value when left out; None if ``required``.
        optional: whether None is a value that it takes.
        choices: of a ``choice``.
        about: what the docstring says of it.
    """

    name: str
    kind: ArgumentKind
    default: Any
    required: bool
    optional: bool = False
    choices: tuple[Any, ...] = ()
    about: str = ""


def arguments(target: Callable[..., Any]) -> list[Argument]:
    """The arguments that can be given by keyword, in their order; ``self`` is left out."""
    if isinstance(target, nn.Module):
        return []
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return []
    texts = descriptions(target)
    hints = _hints(target)
    found = []
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            continue
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        kind, optional, choices = _kind(hints.get(name, parameter.annotation), default)
        found.append(
            Argument(name, kind, default, required, optional, choices, texts.get(name, ""))
        )
    return found


def takes_anything(target: Callable[..., Any]) -> bool:
    """Whether the signature ends in ``**kwargs``, or cannot be read."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def summary(target: Any) -> str:
    """The first paragraph of the docstring of a user's own class or function."""
    text = (
        inspect.cleandoc(vars(target).get("__doc__") or "") if hasattr(target, "__dict__") else ""
    )
    return " ".join(text.split("\n\n")[0].split())


def descriptions(target: Any) -> dict[str, str]:
    """What docstrings in the usual styles say of each argument (Google, reST, NumPy)."""
    found: dict[str, str] = {}
    constructor = vars(target).get("__init__") if isinstance(target, type) else None
    for documented in (target, constructor):
        text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
        found |= _numpy(text) | _listed(text)
    return found


def is_json(value: Any) -> bool:
    """Whether a default can be shown and stored as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _listed(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    last = ""
    indent = 0
    for line in text.splitlines():
        match = re.match(r"^(\s*)(?::param\s+)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s+(\S.*)$", line)
        if match and (match[1] or line.startswith(":param")):
            last, indent = match[2], len(match[1])
            found[last] = match[3].strip()
        elif last and line.strip() and len(line) - len(line.lstrip()) > indent:
            found[last] += " " + line.strip()
        else:
            last = ""
    return found


def _numpy(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        match = re.match(r"^(\w+) : \S", line)
        if match and below.startswith("    "):
            found[match[1]] = below.strip()
    return found


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(
            vars(target).get("__init__") if isinstance(target, type) else target
        )
    except Exception:  # an annotation may name anything at all
        return {}


def _kind(hint: Any, default: Any) -> tuple[ArgumentKind, bool, tuple[Any, ...]]:
    optional = default is None and hint is None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else None
    if typing.get_origin(hint) is Literal:
        return "choice", optional, typing.get_args(hint)
    if hint in _SIMPLE:
        # 1 as the default of a float is common, and 0.5 under int a slip of the pen.
        kind: ArgumentKind = "float" if isinstance(default, float) else _SIMPLE[hint]
        return kind, optional, ()
    return _SIMPLE.get(type(default), "json"), optional, ()
