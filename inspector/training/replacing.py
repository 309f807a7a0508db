"""Exchanging activations of a model that has been built, whoever wrote it.

``{"Sigmoid": "ReLU"}`` puts other modules in place; ``{"sigmoid()": "ReLU"}`` reaches what
``forward`` calls as a function, which is no module.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from types import BuiltinFunctionType
from typing import Any

from torch import nn

from inspector.errors import ConfigError
from inspector.training.exchanging import Exchange, exchange

FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "sigmoid", "logsigmoid", "hardsigmoid", "tanh", "hardtanh", "hardswish", "softsign",
    "softmax", "log_softmax",
)  # fmt: skip
"""Activations that can be exchanged where they are called as functions."""

_exchanges: weakref.WeakKeyDictionary[nn.Module, dict[str, tuple[Exchange, nn.Module]]] = (
    weakref.WeakKeyDictionary()
)


def replace_modules(model: nn.Module, wanted: dict[str, Any]) -> list[str]:
    """Puts new modules in the place of others, and of functions; gives what was changed.

    Args:
        wanted: the name of a type, the path of one module, or a function such as ``relu()``, to
            the name of a class of ``torch.nn`` that needs no arguments. ``block.relu()`` means
            the calls while the module at that path runs. Calls that a module of PyTorch makes,
            such as ``nn.ReLU``, are exchanged as well.

    Raises:
        ConfigError: no module has the type or path, or there is no such function or class.
    """
    modules = {key: name for key, name in wanted.items() if not key.endswith("()")}
    changed = [path for key, name in modules.items() for path in _replace(model, key, name)]
    exchanged: dict[str, tuple[Exchange, nn.Module]] = {}
    for path, functions in by_path(wanted).items():
        made = {name: _made_for(name, cls) for name, cls in functions.items()}
        mode = exchange(_at(model, path), made)
        exchanged |= {f"{path}.{name}()".lstrip("."): (mode, new) for name, new in made.items()}
    if exchanged:
        _exchanges[model] = exchanged
    return changed + list(exchanged)


def by_path(wanted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The functions to exchange: path of a module, name, class."""
    found: dict[str, dict[str, Any]] = {}
    for key, cls in wanted.items():
        if key.endswith("()"):
            path, _, name = key.removesuffix("()").rpartition(".")
            found.setdefault(path, {})[name] = cls
    return found


@contextlib.contextmanager
def heard(model: nn.Module, *, compiled: bool | str = False) -> Iterator[None]:
    """A pass of the model in which each function to be exchanged must be called.

    Raises:
        ConfigError: at the end, when one was not, or in a way that ``torch.compile`` hides.
    """
    exchanged = _exchanges.get(model, {})
    calls: list[tuple[Any, Any]] = []
    held = {mode: mode.new for mode, _ in exchanged.values()}
    for mode, new in held.items():
        mode.new = {function: _noting(calls, function, by) for function, by in new.items()}
    try:
        yield
    finally:
        for mode, new in held.items():
            mode.new = new
    for key, (_, module) in exchanged.items():
        spellings = [function for function, by in calls if by is module]
        if not spellings:
            raise ConfigError(
                f"Expected forward() to call {key}, as replace says, but for one batch it did "
                "not; an activation that is a module is replaced by its type or path."
            )
        hidden = [f for f in spellings if isinstance(f, BuiltinFunctionType) and _in_place(f)]
        if compiled and hidden:
            name = hidden[0].__name__
            raise ConfigError(
                f"Expected calls that torch.compile lets us exchange, but got {name}(x); write "
                f"x.{name}(), or set compile to false."
            )


def _in_place(function: Any) -> bool:
    return str(function.__name__).endswith("_")


def _noting(calls: list[tuple[Any, Any]], function: Any, module: Any) -> Any:
    def noting(x: Any) -> Any:
        calls.append((function, module))
        return module(x)

    return noting


def _at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ConfigError(
            f"Expected a function as in block.relu() in replace, but the model has no module "
            f"{path!r}."
        ) from error


def _made_for(function: str, name: Any) -> nn.Module:
    if function not in FUNCTIONS:
        raise ConfigError(
            f"Expected a function in replace that is one of {', '.join(FUNCTIONS)}, "
            f"but got {function}()."
        )
    made = _made(name)
    plain = type(made).__module__ in ("torch.nn.modules.activation", "torch.nn.modules.linear")
    if not plain or isinstance(made, nn.RReLU) or next(made.parameters(), None) is not None:
        raise ConfigError(
            f"Expected an activation without weights of its own for {function}() in replace, "
            f"such as ReLU or Identity, but got {name}."
        )
    return made


def _replace(model: nn.Module, key: str, name: Any) -> list[str]:
    found = {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if path and (path == key or type(module).__name__ == key)
    }
    if not found:
        types = sorted({type(module).__name__ for module in model.modules()})
        raise ConfigError(
            f"Expected the type or path of a module in replace, but got {key!r}; this model has "
            f"{', '.join(types)}. An activation that forward() calls as a function is written "
            "as relu()."
        )
    # A module that is used in several places is one module afterwards, too.
    made = {id(module): _made(name) for module in found.values()}
    for path, module in found.items():
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, made[id(module)].train(module.training))
    return list(found)


def _made(name: Any) -> nn.Module:
    cls = getattr(nn, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ConfigError(f"Expected the name of a class of torch.nn in replace, but got {name!r}.")
    try:
        made = cls()
    except TypeError as error:
        raise ConfigError(
            f"Expected a module without arguments in replace, such as ReLU, but got {name}: {error}"
        ) from error
    assert isinstance(made, nn.Module)
    return made
