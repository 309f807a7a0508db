"""Exchanging modules of a model that has been built: ``{"Sigmoid": "ReLU"}``.

Works for every model whose activations are modules, whoever wrote it. An activation that
``forward`` calls as a function (``torch.sigmoid(x)``) is no module and cannot be reached.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from inspector.errors import ConfigError


def replace_modules(model: nn.Module, wanted: dict[str, Any]) -> list[str]:
    """Puts new modules in the place of others; gives the paths that were changed.

    Args:
        wanted: the name of a type, or the path of one module, to the name of a class of
            ``torch.nn`` that needs no arguments.

    Raises:
        ConfigError: no module has the type or path, or there is no such class.
    """
    return [path for key, name in wanted.items() for path in _replace(model, key, name)]


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
            f"{', '.join(types)}. An activation that forward() calls as a function is no module."
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
