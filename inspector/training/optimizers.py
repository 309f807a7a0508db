"""Optimizers by name."""

from __future__ import annotations

from torch import nn, optim

from inspector.config import RunConfig
from inspector.errors import ConfigError, ModelError


def build_optimizer(model: nn.Module, config: RunConfig) -> optim.Optimizer:
    """The optimizer that ``config`` names, over every trainable parameter.

    Raises:
        ConfigError: the momentum is one the optimizer cannot have.
        ModelError: the model has nothing to train.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(
            f"Expected parameters to train in {config.model}, but it has none; "
            "choose another model."
        )
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    if config.optimizer == "sgd":
        return optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay)
    if config.optimizer == "rmsprop":
        return optim.RMSprop(parameters, lr=lr, momentum=momentum, weight_decay=decay)
    if config.optimizer == "adagrad":
        return optim.Adagrad(parameters, lr=lr, weight_decay=decay)
    betas = (momentum or 0.9, 0.999)
    if config.optimizer == "adam":
        return optim.Adam(parameters, lr=lr, betas=betas, weight_decay=decay)
    if config.optimizer == "adamw":
        return optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=decay)
    raise ConfigError(f"There is no optimizer named {config.optimizer!r}.")
