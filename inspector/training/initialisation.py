"""First weights by module type, with the functions of ``torch.nn.init``.

The weights of a module (parameters of two or more axes) are drawn by the method, its biases and
other vectors become zero; ``constant`` and ``zeros`` are for vectors of normalisation too. A bias
may be given a number of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from inspector.errors import ConfigError
from inspector.training.signatures import check_arguments

METHODS: dict[str, Callable[..., Any]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "orthogonal": nn.init.orthogonal_,
    "trunc_normal": nn.init.trunc_normal_,
    "normal": nn.init.normal_,
    "uniform": nn.init.uniform_,
    "constant": nn.init.constant_,
    "zeros": nn.init.zeros_,
}
_OF_MATRICES = frozenset(
    {"xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"}
)
_RESERVED = ("tensor", "generator")
_USUAL: dict[str, dict[str, Any]] = {
    "kaiming_uniform": {"nonlinearity": "relu"},
    "kaiming_normal": {"nonlinearity": "relu"},
    "trunc_normal": {"std": 0.02},
    "constant": {"val": 0.1},
}
"""Arguments that a method is called with unless they are given."""


class Rule:
    """How the modules of one type are initialised."""

    def __init__(self, type_name: str, given: Any) -> None:
        """Raises ConfigError for an unknown method or an argument that it does not take.

        Args:
            given: the name of a method, or a dict of ``name``, its arguments and ``bias``.
        """
        settings = {"name": given} if isinstance(given, str) else given
        if not isinstance(settings, dict) or settings.get("name") not in (*METHODS, "default"):
            raise ConfigError(
                f"init.{type_name} must be one of default, {', '.join(METHODS)}, or a dict with "
                f"such a name, but got {given!r:.80}."
            )
        self.name = settings["name"]
        self._bias = settings.get("bias", 0.0)
        if not isinstance(self._bias, (int, float)) or not math.isfinite(self._bias):
            raise ConfigError(f"init.{type_name}.bias must be a number, but got {self._bias!r}.")
        arguments = {key: settings[key] for key in settings if key not in ("name", "bias")}
        if self.name == "default":
            if len(settings) > 1:
                raise ConfigError(f"init.{type_name}: default takes no arguments.")
            return
        method = METHODS[self.name]
        check_arguments(method, arguments, setting=f"init.{type_name}", name=self.name,
                        reserved=_RESERVED)  # fmt: skip
        self._draw = lambda tensor: method(tensor, **{**_USUAL.get(self.name, {}), **arguments})

    def __call__(self, module: nn.Module) -> None:
        """Gives the module's own parameters their first values."""
        if self.name == "default":
            return
        vectors_too = self.name not in _OF_MATRICES
        with torch.no_grad():
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name:
                    parameter.fill_(self._bias)
                elif parameter.ndim > 1 or (vectors_too and "weight" in name):
                    self._apply(parameter)
                else:
                    raise ConfigError(
                        f"{self.name} draws matrices, but {name} of {type(module).__name__} has "
                        f"shape {tuple(parameter.shape)}; choose constant, zeros or default for it."
                    )
            padding = getattr(module, "padding_idx", None)
            if padding is not None and isinstance(module.weight, Tensor):
                module.weight[padding] = 0  # as PyTorch's own embeddings begin

    def _apply(self, parameter: Tensor) -> None:
        try:
            self._draw(parameter)  # type: ignore[no-untyped-call]
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{self.name} cannot be used: {error}") from error


def initialise(model: nn.Module, rules: dict[str, Any]) -> None:
    """Initialises every module whose type, or a base class of it, has a rule.

    A lazy module has no weights yet: it is initialised right before its first forward.

    Raises:
        ConfigError: a rule cannot be used, or no module has its type.
    """
    made = {name: Rule(name, given) for name, given in rules.items()}
    for module, rule in _matches(model, made):
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            _later(module, rule)
        else:
            rule(module)


def _later(module: nn.Module, rule: Rule) -> None:
    """At the first forward; the module's own hook, which comes first, gives it its weights."""

    def initialise_now(module: nn.Module, _args: Any) -> None:
        handle.remove()
        rule(module)

    handle = module.register_forward_pre_hook(initialise_now)


def summary(model: nn.Module, rules: dict[str, Any]) -> str:
    """What was initialised by which method, in a sentence; empty without rules."""
    counts: dict[tuple[str, str], int] = {}
    for module, rule in _matches(model, {name: Rule(name, rules[name]) for name in rules}):
        key = rule.name, type(module).__name__
        counts[key] = counts.get(key, 0) + 1
    parts = [f"{kind} × {count} by {method}" for (method, kind), count in counts.items()]
    return f"First weights: {', '.join(parts)}." if parts else ""


def _matches(model: nn.Module, rules: dict[str, Rule]) -> Iterator[tuple[nn.Module, Rule]]:
    """Modules with parameters of their own, each with the rule of the nearest of its types."""
    used = set()
    for module in model.modules():
        if next(iter(module.parameters(recurse=False)), None) is None:
            continue
        for name in _type_names(module):
            if name in rules:
                used.add(name)
                yield module, rules[name]
                break
    unused = sorted(set(rules) - used)
    if unused:
        there = sorted({type(m).__name__ for m in model.modules() if list(m.parameters(False))})
        raise ConfigError(
            f"init names {unused[0]}, but no such module with parameters is in the model; "
            f"choose from {', '.join(there)}."
        )


def _type_names(module: nn.Module) -> list[str]:
    """The names of its type and base classes, nearest first; of a lazy one, what it becomes too."""
    bases = [base.__name__ for base in type(module).__mro__[:-2]]
    becomes = getattr(module, "cls_to_become", None)
    return bases if becomes is None else [bases[0], becomes.__name__, *bases[1:]]
