"""A task: the model, data, loss and optimizer of a configuration, on a device, ready to train."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn, optim

from inspector import catalog
from inspector.catalog import Kind
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.training.data import Examples, Loader, load, loaders
from inspector.training.downloads import Progress
from inspector.training.losses import build_loss
from inspector.training.models import build_model, image_size
from inspector.training.optimizers import build_optimizer


@dataclass(frozen=True, slots=True)
class Task:
    """What :func:`inspector.training.loop.train` trains.

    Attributes:
        input_shape: shape of one sample as the model sees it.
        class_names: empty unless ``kind`` is classification.
        epochs, total_steps: how long training goes on; the last epoch may be cut short.
    """

    config: RunConfig
    model: nn.Module
    train_loader: Loader
    val_loader: Loader
    loss_fn: nn.Module
    optimizer: optim.Optimizer
    device: torch.device
    kind: Kind
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    epochs: int
    total_steps: int

    @property
    def train_set(self) -> Examples:
        return cast(Examples, self.train_loader.dataset)

    @property
    def val_set(self) -> Examples:
        return cast(Examples, self.val_loader.dataset)


def build_task(config: RunConfig, progress: Progress | None = None) -> Task:
    """Seeds the random numbers and builds everything that ``config`` names.

    Args:
        progress: told how far a download is.

    Raises:
        ConfigError, ModelError, DataError: something is unknown, unavailable or does not fit.
        Exception: whatever the model's own constructor raises.
    """
    device = pick_device(config.device)
    source = load(config.data, config.data_args, progress)
    entry = catalog.MODELS.get(config.model)
    echo = entry is not None and entry.reconstructs
    kind: Kind = "reconstruction" if echo else source.kind
    loss_fn = build_loss(config.loss, kind)
    seed_everything(config.seed)
    model = build_model(config, source).to(device)
    size = image_size(config.model, source)
    train_loader, val_loader = loaders(source, config, size=size, echo=echo)
    per_epoch = len(train_loader)
    total_steps = config.steps or config.epochs * per_epoch
    return Task(
        config=config,
        model=model,
        train_loader=train_loader,
        val_loader=val_loader,
        loss_fn=loss_fn,
        optimizer=build_optimizer(model, config),
        device=device,
        kind=kind,
        input_shape=(source.shape[0], size, size) if size else source.shape,
        class_names=source.class_names if kind == "classification" else (),
        epochs=math.ceil(total_steps / per_epoch),
        total_steps=total_steps,
    )


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's global random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device must be auto, cpu, cuda, cuda:N or mps, but got {name!r}."
        ) from error
    count = {"cpu": 1, "mps": int(mps), "cuda": torch.cuda.device_count()}.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ConfigError(
            f"device {name} was asked for, but this machine has {count} of type {device.type}; "
            "choose auto or cpu."
        )
    return device
