"""Several optimizers, or one with several parameter groups: names for people, and readings."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.capture.parameters import plain
from inspector.capture.readings import rates
from inspector.capture.transfer import Scalar
from inspector.commands import OF_OPTIMIZERS, series_of

Places = tuple[tuple[weakref.ref[Any], int, str], ...]
"""Of each group: its optimizer, its number there, and the series of its learning rate."""

_FEW = 8  # groups whose rates are read in every step; those of more in full steps only
_SHOWN = 2  # modules in a name
_DEEP = 8  # parts of a module path that are looked at


class OtherGroups:
    """Reads what all groups step with, but for the first one's of the first optimizer.

    Learning rates are read in every attended step, momentum and weight decay when they have
    changed and in steps that are measured fully.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._names: dict[tuple[int, int], dict[str, str]] = {}

    def read(self, optimizers: Sequence[Any], *, full: bool) -> dict[str, Scalar]:
        """Numbers by series, see :func:`inspector.commands.series_of`."""
        if len(optimizers) == 1 and len(optimizers[0].param_groups) == 1:
            return {}
        if not full and _many(optimizers):
            return {}
        found: dict[str, Scalar] = {}
        for position, optimizer in enumerate(optimizers):
            for number, group in enumerate(optimizer.param_groups):
                if position or number:
                    self._add(found, position, number, group, full=full)
        return found

    def places(self, optimizers: Sequence[Any]) -> Places:
        """Where learning rates are to be read in steps that are left to the extension."""
        if _many(optimizers):
            return ()
        return tuple(
            (weakref.ref(optimizer), number, self._names_of(position, number)["lr"])
            for position, optimizer in enumerate(optimizers)
            for number in range(len(optimizer.param_groups))
            if position or number
        )

    def _names_of(self, position: int, number: int) -> dict[str, str]:
        """The series of a group's settings."""
        names = self._names.get((position, number))
        if names is None:
            names = {name: series_of(name, position, number) for name in OF_OPTIMIZERS}
            self._names[position, number] = names
        return names

    def _add(
        self, found: dict[str, Scalar], position: int, number: int, group: Any, *, full: bool
    ) -> None:
        names = self._names_of(position, number)
        for control, value in rates(group).items():
            name = names[control]
            known = isinstance(value, float) and self._last.get(name) == value
            if full or control == "lr" or not known:
                found[name] = value
            if isinstance(value, float):
                self._last[name] = value


def _many(optimizers: Sequence[Any]) -> bool:
    return sum(len(one.param_groups) for one in optimizers) > _FEW


def document(model: torch.nn.Module | None, optimizers: Sequence[Any], step: int) -> dict[str, Any]:
    """The ``optimizers`` document: names for people, and what is in force before ``step``."""
    names = titles(model, optimizers)
    return {
        "step": step,
        "optimizers": [
            {
                "type": type(optimizer).__name__,
                "title": names[str(position)],
                "groups": [
                    {
                        "title": names[f"{position}/{number}"],
                        "parameters": len(group["params"]),
                        **{name: float(value) for name, value in rates(group).items()},
                    }
                    for number, group in enumerate(optimizer.param_groups)
                ],
            }
            for position, optimizer in enumerate(optimizers)
        ],
    }


def titles(model: torch.nn.Module | None, optimizers: Sequence[Any]) -> dict[str, str]:
    """A name for each target of a command: ``generator · Adam``, ``generator · Adam · group 1``.

    An optimizer is called by the modules that only it trains, or by its position where there are
    none; a group by its position, with its modules.
    """
    named = () if model is None else model.named_parameters()
    known: dict[int, Pair] = {id(tensor): (plain(name), tensor) for name, tensor in named}
    held = [[_known(known, group) for group in one.param_groups] for one in optimizers]
    whole = [[pair for group in groups for pair in group] for groups in held]
    found: dict[str, str] = {}
    for position, optimizer in enumerate(optimizers):
        modules = _apart(whole, position) if len(optimizers) > 1 else ""
        name = f"{modules or f'optimizer {position}'} · {type(optimizer).__name__}"
        if name in found.values():
            name = f"{name} ({position})"
        found[str(position)] = name
    for position, groups in enumerate(held):
        for number in range(len(groups)):
            modules = _apart(groups, number)
            name = f"group {number}" + f" · {modules}" * bool(modules)
            if len(optimizers) > 1:
                alone = len(groups) == 1
                name = found[str(position)] + f" · {name}" * (not alone)
            found[f"{position}/{number}"] = name
    return found


Pair = tuple[str, Tensor]


def _known(known: dict[int, Pair], group: Any) -> list[Pair]:
    return [known[id(tensor)] for tensor in group["params"] if id(tensor) in known]


def _apart(sets: Sequence[Sequence[Pair]], at: int) -> str:
    """What tells one set of parameters from the others: its modules, or that it has no matrices."""
    own = sets[at]
    others = [pair for number, one in enumerate(sets) if number != at for pair in one]
    if not own or not others:
        return ""
    for depth in range(1, _DEEP):
        mine = dict.fromkeys(_module(name, depth) for name, _ in own)
        if not mine.keys() & {_module(name, depth) for name, _ in others}:
            return _listed(mine)
    small, large = (all((tensor.dim() < 2) == flat for _, tensor in own) for flat in (True, False))
    if small:
        return "biases, norms"
    return "weights" if large and all(tensor.dim() < 2 for _, tensor in others) else ""


def _module(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:-1][:depth])


def _listed(modules: Iterable[str]) -> str:
    names = [name for name in modules if name]
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)
