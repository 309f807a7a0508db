"""What a configuration sets differently from plain training, in a few words each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector.config import RunConfig
from inspector.numerals import short

SCHEDULES = {
    "constant": "constant",
    "step": "steps down",
    "multi_step": "steps down at milestones",
    "exponential": "exponential decay",
    "cosine": "cosine",
    "one_cycle": "one cycle",
    "warmup_cosine": "warm-up, then cosine",
    "reduce_on_plateau": "reduced on a plateau",
}
"""Schedules in words."""

_WHEN_NONFINITE = {"pause": "pauses", "skip": "skips the step"}


def changes(config: RunConfig) -> list[str]:
    """A phrase for each practice that is on; empty for plain training."""
    controls = config.controls
    found = [
        *_of_data(config),
        *([f"momentum {short(config.momentum, 6)}"] if config.momentum else []),
        *([f"weight decay {short(config.weight_decay, 6)}"] if config.weight_decay else []),
        *_arguments(config.optimizer_args),
        *_counted(len(config.param_groups), "parameter group"),
        *([f"schedule {SCHEDULES.get(str(name), name)}"] if (name := _schedule(config)) else []),
        *([f"loss {config.loss}"] if config.loss != "auto" else []),
        *_arguments(config.loss_args),
        *(f"{kind} initialised {_method(how)}" for kind, how in config.init.items()),
        *(f"{old} replaced by {new}" for old, new in config.replace.items()),
        *([config.precision] if config.precision != "float32" else []),
        *([f"{controls.accumulate} passes a step"] if controls.accumulate > 1 else []),
    ]
    if controls.clip != "off":
        found.append(f"clipping by {controls.clip} {short(controls.clip_threshold, 6)}")
    if not controls.zero_grad:
        found.append("zero_grad off")
    if controls.frozen:
        found.append(f"{_listed(controls.frozen)} frozen")
    if controls.eval_modules:
        found.append(f"{_listed(controls.eval_modules)} in eval mode")
    if config.early_stopping:
        found.append(f"stops after {_epochs(config.early_stopping)} without improvement")
    if config.checkpoint_every:
        found.append(f"checkpoint every {config.checkpoint_every:,} steps")
    if config.resume:
        found.append(f"goes on from {config.resume}")
    if config.overfit_batches:
        found += _counted(config.overfit_batches, "batch", "es", before="overfits ")
    if config.deterministic:
        found.append("deterministic")
    if config.compile:
        found.append("compiled" if config.compile is True else f"compiled by {config.compile}")
    found += _counted(len(config.augment), "augmentation")
    if config.metrics:
        found.append("metrics " + _listed([str(name) for name in config.metrics]))
    if controls.on_nonfinite != "continue":
        found.append(f"{_WHEN_NONFINITE[controls.on_nonfinite]} at NaN or infinity")
    found += _counted(config.workers, "loading process", "es")
    if config.pin_memory:
        found.append("pinned memory")
    if config.follows:
        found.append(f"answers {config.follows.get('run')}: {config.follows.get('text')}")
    return found


def _of_data(config: RunConfig) -> list[str]:
    """What is done to weights, task and samples before anything trains."""
    found = [f"weights from {Path(config.weights).name}"] if config.weights else []
    if config.task != "auto":
        found.append(f"task {config.task.replace('_', ' ')}")
    if config.validation != RunConfig().validation:
        found.append(f"{config.validation:.0%} for validation")
    if config.test:
        found.append(f"{config.test:.0%} for a test")
    if config.stratify:
        found.append("stratified by class")
    if config.normalize:
        found.append("normalised by the training part")
    if config.balance:
        found.append("each class drawn equally often")
    return found


def _schedule(config: RunConfig) -> str:
    name = str((config.controls.schedule or {}).get("name", ""))
    return "" if name == "constant" else name


def _arguments(given: Mapping[str, Any]) -> list[str]:
    return [
        name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {_value(value)}"
        for name, value in given.items()
    ]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return short(value, 6) if isinstance(value, float) else str(value)


def _method(how: Any) -> str:
    name = how.get("name", how) if isinstance(how, Mapping) else how
    return str(name).replace("_", " ")


def _listed(names: Any) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _counted(count: int, word: str, plural: str = "s", *, before: str = "") -> list[str]:
    return [f"{before}{count} {word}{plural * (count != 1)}"] if count else []


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"
