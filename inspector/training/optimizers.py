"""Optimizers by name, with all of their arguments and parameter groups."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn, optim

from inspector.capture.freezing import inside
from inspector.commands import check
from inspector.config import OPTIMIZERS, RunConfig
from inspector.errors import CommandError, ConfigError, ModelError
from inspector.numerals import short
from inspector.training.signatures import check_arguments

CLASSES: dict[str, type[optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "adamax": optim.Adamax,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "asgd": optim.ASGD,
    "rprop": optim.Rprop,
    "adafactor": optim.Adafactor,
    "muon": optim.Muon,
    "lbfgs": optim.LBFGS,
    "sparse_adam": optim.SparseAdam,
}
assert tuple(CLASSES) == OPTIMIZERS

_ELSEWHERE = ("params", "lr", "weight_decay", "momentum")  # settings of their own
_REFUSED = {
    "differentiable": "it makes the step itself part of an autograd graph",
    "capturable": "it is for CUDA graphs, which this loop does not record",
}


def build_optimizer(model: nn.Module, config: RunConfig) -> optim.Optimizer:
    """The optimizer that ``config`` names, over every trainable parameter.

    The first group has the parameters that no entry of ``param_groups`` names.

    Raises:
        ConfigError: an argument is unknown or cannot be used, or groups name a module that is not
            there or a parameter twice.
        ModelError: the model has nothing to train, or nothing that this optimizer can train.
    """
    cls = CLASSES[config.optimizer]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(
            f"Expected parameters to train in {config.model}, but it has none; "
            "choose another model."
        )
    _refuse_misfits(cls, model)
    arguments = optimizer_arguments(cls, config)
    groups = _groups(cls, model, config) if config.param_groups else parameters
    try:
        return cls(groups, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{cls.__name__} does not take these settings: {error}") from error


def optimizer_arguments(cls: type[optim.Optimizer], config: RunConfig) -> dict[str, Any]:
    """The constructor's keyword arguments."""
    accepted = inspect.signature(cls).parameters
    given = dict(config.optimizer_args)
    check_arguments(cls, given, setting="optimizer_args", name=cls.__name__, reserved=_ELSEWHERE)
    for name, reason in _REFUSED.items():
        if given.get(name):
            raise ConfigError(f"{name} cannot be used here: {reason}; leave it out.")
    made: dict[str, Any] = {"lr": config.lr}
    if "weight_decay" in accepted:
        made["weight_decay"] = config.weight_decay
    elif config.weight_decay:
        raise ConfigError(
            f"{cls.__name__} has no weight decay, but got "
            f"weight_decay={short(config.weight_decay, 6)}; "
            "set it to 0."
        )
    if "momentum" in accepted and (config.momentum or not accepted["momentum"].default):
        made["momentum"] = config.momentum
    elif "betas" in accepted and config.momentum:
        if "betas" in given:
            raise ConfigError(
                f"momentum is {cls.__name__}'s first beta, but optimizer_args has betas too; "
                "set one of them."
            )
        made["betas"] = (config.momentum, *accepted["betas"].default[1:])
    return made | {key: _as_tuple(value) for key, value in given.items()}


def _groups(cls: type[optim.Optimizer], model: nn.Module, config: RunConfig) -> list[Any]:
    """One group for the rest, then one for each entry of ``param_groups``."""
    if cls is optim.LBFGS:
        raise ConfigError("LBFGS has one group of parameters only; leave param_groups empty.")
    named = dict(model.named_parameters(remove_duplicate=False))
    order = {id(parameter): number for number, parameter in enumerate(model.parameters())}
    taken: dict[int, str] = {}
    groups = []
    for entry in config.param_groups:
        settings, paths = _entry(cls, entry)
        try:
            names = inside(model, paths)
        except CommandError as error:
            raise ConfigError(f"In param_groups: {error}") from error
        parameters = {id(named[name]): named[name] for name in names}
        for name in sorted(names):
            first = taken.get(id(named[name]))
            if first is not None:
                raise ConfigError(
                    f"Parameter {name} is in two groups of param_groups, {first} and "
                    f"{', '.join(paths)}; name it once."
                )
        taken |= dict.fromkeys(parameters, ", ".join(paths))
        kept = [parameter for parameter in parameters.values() if parameter.requires_grad]
        if not kept:
            raise ConfigError(f"Nothing in {', '.join(paths)} is trained; leave that group out.")
        groups.append({"params": sorted(kept, key=lambda p: order[id(p)]), **settings})
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    return [{"params": rest}, *groups] if rest else groups


def _entry(cls: type[optim.Optimizer], entry: Any) -> tuple[dict[str, Any], list[str]]:
    paths = entry.get("modules") if isinstance(entry, dict) else None
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, (list, tuple)) or not paths or not isinstance(paths[0], str):
        raise ConfigError(
            "An entry of param_groups must be a dict with 'modules', a list of paths, "
            f"but got {entry!r:.80}."
        )
    settings = {key: _as_tuple(value) for key, value in entry.items() if key != "modules"}
    check_arguments(
        cls, settings, setting="param_groups", name=cls.__name__, reserved=("params", *_REFUSED)
    )
    for name in {"lr", "weight_decay", "momentum"} & set(settings):
        try:
            check(name, settings[name])
        except CommandError as error:
            raise ConfigError(f"In param_groups: {error}") from error
    return settings, list(paths)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _refuse_misfits(cls: type[optim.Optimizer], model: nn.Module) -> None:
    """Muon takes matrices only, SparseAdam sparse gradients only, others dense ones mostly."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if cls is optim.Muon:
        for name, parameter in trained.items():
            if not nn.parameter.is_lazy(parameter) and parameter.ndim != 2:
                raise ModelError(
                    f"Muon trains matrices only, but {name} has shape {tuple(parameter.shape)}; "
                    "choose another optimizer, or a model of linear maps without biases."
                )
    if cls is optim.SparseAdam:
        sparse = _sparse(model)
        dense = [name for name, parameter in trained.items() if id(parameter) not in sparse]
        if dense:
            raise ModelError(
                f"SparseAdam trains embeddings with sparse=True only, but {dense[0]} has dense "
                "gradients; choose another optimizer."
            )


def _sparse(model: nn.Module) -> set[int]:
    """Parameters of embeddings whose gradients are sparse."""
    return {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
    }
