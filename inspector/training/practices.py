"""What is refused before the start, since the practices asked for cannot work together."""

from __future__ import annotations

from torch import nn, optim

from inspector.capture.freezing import Freezing
from inspector.capture.modes import find
from inspector.config import RunConfig
from inspector.errors import CommandError, ConfigError
from inspector.training.samples import Loader
from inspector.training.schedules import resolve


def check_practices(
    config: RunConfig,
    model: nn.Module,
    optimizer: optim.Optimizer,
    validation: Loader,
    *,
    steps: int,
    steps_per_epoch: int,
) -> None:
    """Raises ConfigError with the first thing that cannot work."""
    controls = config.controls
    held_out = _some(validation)
    if config.early_stopping and not held_out:
        raise ConfigError(
            "early_stopping looks at the validation loss, but no samples are held out; set "
            "validation above 0, or early_stopping to 0."
        )
    schedule = controls.schedule or {"name": "constant"}
    if schedule["name"] == "reduce_on_plateau" and not held_out:
        raise ConfigError(
            "Schedule reduce_on_plateau looks at the validation loss, but no samples are held out; "
            "set validation above 0, or choose another schedule."
        )
    try:
        resolve(schedule, config.lr, steps=steps, steps_per_epoch=steps_per_epoch)
        trial = Freezing(model)
        trial.hold(controls.frozen)
        trial.release()
        find(model, controls.eval_modules)
    except CommandError as error:
        raise ConfigError(str(error)) from error
    if isinstance(optimizer, optim.LBFGS) and config.precision == "fp16":
        raise ConfigError(
            "LBFGS evaluates the loss several times in a step, which GradScaler cannot follow; "
            "choose precision bf16 or float32."
        )
    if isinstance(optimizer, optim.LBFGS) and controls.accumulate > 1 and controls.clip != "off":
        raise ConfigError(
            "LBFGS takes its gradients inside its step, where clipping would act on each batch of "
            "an accumulated step alone; set accumulate to 1, or clip to off."
        )


def _some(loader: Loader) -> bool:
    """Whether there are batches, as far as the loader says."""
    try:
        return len(loader) > 0
    except TypeError:
        return True
