"""A task: the model, data, loss and optimizer of a configuration, on a device, ready to train."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn, optim

from inspector import catalog
from inspector.catalog import Kind
from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError
from inspector.training.downloads import Progress
from inspector.training.initialisation import summary
from inspector.training.losses import build_loss
from inspector.training.models import build_model, image_size
from inspector.training.optimizers import build_optimizer
from inspector.training.order import first_batches
from inspector.training.own.code import OwnCode, find_own
from inspector.training.own.datasets import OwnLoaders
from inspector.training.own.sources import AnySource, load_data
from inspector.training.parts import Loaders, loaders
from inspector.training.practices import check_practices
from inspector.training.precision import Precision
from inspector.training.samples import Examples, Loader, Scale, nothing
from inspector.training.step import Judge, Own, Step, Supervised

if TYPE_CHECKING:
    from inspector.training.continuing import Continuation


@dataclass(frozen=True, slots=True)
class Task:
    """What :func:`inspector.training.loop.train` trains.

    Attributes:
        test_loader: looked at once, after the last step; may be empty.
        step: computes the loss of a batch; ``validation_step`` judges held-out batches.
        loss_fn: None where ``step`` is the user's own.
        input_shape: shape of one sample as the model sees it.
        class_names: empty unless ``kind`` is classification.
        epochs, total_steps: how long training goes on; the last epoch may be cut short.
        steps_per_epoch, batches_per_epoch: 0 if the loader does not say.
        precision: what a step computes in.
        notes: what is to be said of the task at the start of the run.
        sources: the user's own Python that was executed, by the name of its file.
        scale: how inputs are normalised.
        resumed: the checkpoint that training goes on from.
    """

    config: RunConfig
    model: nn.Module
    train_loader: Loader
    val_loader: Loader
    test_loader: Loader
    step: Step
    validation_step: Judge
    loss_fn: nn.Module | None
    optimizer: optim.Optimizer
    device: torch.device
    kind: Kind
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    epochs: int
    total_steps: int
    steps_per_epoch: int
    batches_per_epoch: int
    precision: Precision
    source: AnySource
    sources: dict[str, str] = field(default_factory=dict)
    scale: Scale | None = None
    notes: tuple[str, ...] = ()
    resumed: Continuation | None = None

    @property
    def samples(self) -> int:
        """Number of samples to train on; 0 if the data does not say."""
        try:
            return len(self.train_set)
        except TypeError:
            return 0

    @property
    def train_set(self) -> Examples:
        return cast(Examples, self.train_loader.dataset)

    @property
    def val_set(self) -> Examples:
        return cast(Examples, self.val_loader.dataset)


def build_task(
    config: RunConfig, progress: Progress | None = None, *, source: AnySource | None = None
) -> Task:
    """Seeds the random numbers and builds everything that ``config`` names.

    Args:
        progress: told how far a download is.
        source: the samples, where they are loaded already.

    Raises:
        ConfigError, ModelError, DataError: something is unknown, unavailable or does not fit.
        Exception: whatever the model's own constructor, or the user's own data, raises.
    """
    device = pick_device(config.device)
    seed_everything(config.seed)  # a user's source may draw or split at random
    own = find_own(config)
    if source is None:
        task = "own" if own.step else config.task
        source = load_data(config, own.data, task, progress)
    kind = _kind(config, source, own)
    loss_fn = _loss(config, source, kind)
    seed_everything(config.seed)
    model = build_model(config, source, own.model, progress).to(device)
    size = image_size(config.model, source)
    # A user's own pairs, such as noisy and clean images, keep their targets.
    echo = kind == "reconstruction" and (own.data is None or source.kind != kind)
    made = _loaders(source, config, size, echo=echo)
    if config.overfit_batches:
        made = made._replace(train=first_batches(made.train, config.overfit_batches))
    batches = _length(made.train)
    per_epoch = math.ceil(batches / config.controls.accumulate)
    if not (per_epoch or config.steps):
        raise ConfigError(
            f"{config.data} does not say how many batches an epoch has; set steps, not epochs."
        )
    total_steps = config.steps or config.epochs * per_epoch
    optimizer = build_optimizer(model, config)
    check_practices(
        config, model, optimizer, made.validation, steps=total_steps, steps_per_epoch=per_epoch
    )
    step: Own | Supervised = (
        Own(own.step) if own.step else Supervised(cast(nn.Module, loss_fn), kind)
    )
    return Task(
        config=config,
        model=model,
        train_loader=made.train,
        val_loader=made.validation,
        test_loader=made.test,
        step=step,
        validation_step=Own(own.validation_step) if own.validation_step else step,
        loss_fn=None if loss_fn is None else loss_fn.to(device),
        optimizer=optimizer,
        device=device,
        kind=kind,
        input_shape=(source.shape[0], size, size) if size else source.shape,
        class_names=source.class_names if kind == "classification" else (),
        epochs=math.ceil(total_steps / per_epoch) if per_epoch else total_steps,
        total_steps=total_steps,
        steps_per_epoch=per_epoch,
        batches_per_epoch=batches,
        precision=Precision(config.precision, device),
        source=source,
        sources=own.sources,
        scale=made.scale,
        notes=tuple(note for note in (summary(model, config.init),) if note),
    )


def _loss(config: RunConfig, source: AnySource, kind: Kind) -> nn.Module | None:
    """The loss; None where the user's own step computes it."""
    if kind != "own":
        return build_loss(config.loss, kind, config.loss_args, outputs=source.outputs)
    if config.loss_args:
        raise ConfigError("loss_args are of no use to a training_step, which has its own loss.")
    return None


def _kind(config: RunConfig, source: AnySource, own: OwnCode) -> Kind:
    """The task: the user's own step, the one asked for, or the one that the data is for.

    Raises:
        ConfigError: the data does not suit the one asked for.
    """
    if own.step:
        return "own"
    entry = catalog.MODELS.get(config.model)
    echo = entry is not None and entry.reconstructs
    wanted: Kind = "reconstruction" if echo else source.kind
    if config.task in ("auto", wanted):
        return wanted
    if config.task == "reconstruction" and source.layout != "tokens":
        return "reconstruction"
    raise ConfigError(
        f"{config.data} is for {source.kind}, not for {config.task}; choose auto, or other data."
    )


def _loaders(source: AnySource, config: RunConfig, size: int, *, echo: bool) -> Loaders:
    if not isinstance(source, OwnLoaders):
        return loaders(source, config, size=size, echo=echo)
    if size or echo:
        raise ConfigError(
            f"{config.model} needs its images enlarged or its inputs as targets, but {config.data} "
            "is a DataLoader that is used as it is; return the Dataset."
        )
    return Loaders(source.train, source.validation, nothing())


def _length(loader: Loader) -> int:
    try:
        count = len(loader)
    except TypeError:
        return 0
    if count == 0:
        raise DataError(
            "Expected batches to train on, but the loader has none: with drop_last it needs at "
            "least one full batch; lower batch_size."
        )
    return count


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
