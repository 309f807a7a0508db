"""What a person can tell a run: one frozen dataclass of controls, and the commands that change it.

Commands travel as JSON rows of ``control.db`` (see ``store/control.py``). Each has an id, so that
a command that arrives twice is applied once. They are applied at the next step boundary and
answered by a ``command_applied`` or ``command_refused`` event.
"""

from __future__ import annotations

import dataclasses
import json
import math
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from inspector.errors import CommandError
from inspector.numerals import short
from inspector.schedules import SCHEDULES, check_schedule

__all__ = [
    "INTERVENTIONS", "OF_OPTIMIZERS", "SCHEDULES", "Clip", "Command", "Controls", "OnNonFinite",
    "check", "covers_first", "series_of", "target_of",
]  # fmt: skip

Clip = Literal["off", "norm", "value"]
OnNonFinite = Literal["pause", "skip", "continue"]

OF_OPTIMIZERS = ("lr", "momentum", "weight_decay")
"""Controls that can be set in one optimizer or parameter group only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What is in force during a step.

    Attributes:
        lr: learning rate of the first parameter group, to which all others keep their ratios;
            None leaves the optimizer's own.
        momentum: SGD/RMSprop momentum or Adam's first beta; None leaves the optimizer's own.
        weight_decay: weight decay; None leaves the optimizer's own.
        zero_grad: False turns ``optimizer.zero_grad()`` into nothing, so gradients pile up.
        clip: gradient clipping before the step: off, by global L2 norm, or by value.
        clip_threshold: largest global norm, or largest absolute value.
        detect_anomaly: ``torch.autograd.set_detect_anomaly``.
        max_steps_per_s: slow motion; None runs at full speed.
        on_nonfinite: what to do when a loss, gradient or activation becomes non-finite:
            ``pause`` holds the update back and waits, ``skip`` holds it back and goes on,
            ``continue`` lets it happen, as plain PyTorch does. All three say where it began.
        capture_every: telemetry of modules and parameters is taken every so many steps;
            0 lets the schedule keep to its budget by itself.
        graph_every: the autograd graph is captured every so many steps; 0 only on request.
        schedule: how the learning rate goes on from here: a dict with ``name``, one of
            ``SCHEDULES``, and the scheduler's arguments; None leaves the optimizer's own.
        accumulate: backward passes whose gradients are summed before each optimizer step; the
            loss is divided by their number.
        frozen: paths of modules whose parameters do not require gradients.
        eval_modules: types or paths of modules that are held in eval mode while training, such
            as ``BatchNorm2d`` or ``Dropout``.
    """

    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    zero_grad: bool = True
    clip: Clip = "off"
    clip_threshold: float = 1.0
    detect_anomaly: bool = False
    max_steps_per_s: float | None = None
    on_nonfinite: OnNonFinite = "continue"
    capture_every: int = 0
    graph_every: int = 0
    schedule: dict[str, Any] | None = None
    accumulate: int = 1
    frozen: tuple[str, ...] = ()
    eval_modules: tuple[str, ...] = ()

    def with_value(self, name: str, value: Any) -> Controls:
        """A copy with one control changed.

        Raises:
            CommandError: the name is unknown, or the value is not one the control can take
                (NaN, infinite, negative, of the wrong type); the message says which is wanted.
        """
        return dataclasses.replace(self, **{name: check(name, value)})


def check(name: str, value: Any) -> Any:
    """The value as the control stores it, or :class:`CommandError` with the reason."""
    if name in ("zero_grad", "detect_anomaly"):
        if not isinstance(value, bool):
            raise CommandError(f"{name} must be true or false, but got {value!r}.")
        return value
    if name in ("clip", "on_nonfinite"):
        choices = ("off", "norm", "value") if name == "clip" else ("pause", "skip", "continue")
        if value not in choices:
            raise CommandError(f"{name} must be one of {', '.join(choices)}, but got {value!r}.")
        return value
    if name in ("capture_every", "graph_every"):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise CommandError(
                f"{name} must be a whole number of steps, 0 or more, but got {value!r}."
            )
        return value
    if name == "accumulate":
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CommandError(
                f"accumulate must be a whole number of passes, 1 or more, but got {value!r}."
            )
        return value
    if name in ("frozen", "eval_modules"):
        if not isinstance(value, (list, tuple)) or not all(isinstance(i, str) for i in value):
            raise CommandError(f"{name} must be a list of names, but got {value!r:.80}.")
        return tuple(value)
    if name == "schedule":
        return check_schedule(value)
    if name not in _RANGES:
        raise CommandError(
            f"There is no control named {name!r}; choose one of "
            f"{', '.join(f.name for f in dataclasses.fields(Controls))}."
        )
    optional, positive, below = _RANGES[name]
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CommandError(f"{name} must be a number, but got {value!r}.")
    number = float(value)
    if not math.isfinite(number):
        raise CommandError(f"{name} must be a finite number, but got {number}.")
    if number < 0 or (positive and number == 0):
        wanted = "greater than 0" if positive else "0 or greater"
        raise CommandError(f"{name} must be {wanted}, but got {short(number, 6)}.")
    if below is not None and number >= below:
        raise CommandError(
            f"{name} must be less than {short(below, 6)}, but got {short(number, 6)}."
        )
    return number


def target_of(text: str) -> tuple[int | None, int | None]:
    """Position of the optimizer and of its parameter group that a command speaks of.

    ``""`` is all optimizers, ``"1"`` the second one, ``"1/0"`` its first group. None stands for
    all. Raises CommandError for anything else.
    """
    optimizer, slash, group = text.partition("/") if isinstance(text, str) else ("?", "", "")
    places = [optimizer, *([group] if slash else [])]
    if text == "":
        return None, None
    if not all(place.isascii() and place.isdigit() for place in places):
        raise CommandError(
            "target must be empty for all optimizers, the position of one such as '1', or with "
            f"its parameter group such as '1/0', but got {text!r:.80}."
        )
    return int(optimizer), int(group) if slash else None


def covers_first(target: str) -> bool:
    """Whether a target holds the first optimizer's first group, whose values ``Controls`` tell."""
    return target in ("", "0", "0/0")


def series_of(control: str, optimizer: int, group: int = 0) -> str:
    """Name of the series of a control of one optimizer's parameter group.

    ``lr`` of the first, ``lr/group 1`` of the first optimizer's second group, ``lr/optimizer 1``
    and ``lr/optimizer 1 group 1`` of the second optimizer.
    """
    words = [f"optimizer {optimizer}"] * (optimizer > 0) + [f"group {group}"] * (group > 0)
    return f"{control}/{' '.join(words)}" if words else control


def _check_capture(value: Any) -> None:
    wanted = {} if value is None else value
    if (
        not isinstance(wanted, dict)
        or not set(wanted) <= {"when", "module"}
        or wanted.get("when", "next") not in ("next", "nonfinite")
        or not isinstance(wanted.get("module", ""), str)
    ):
        raise CommandError(
            "capture_backward takes nothing, or a dict with 'when' (next or nonfinite) and "
            f"'module' (a path), but got {value!r:.80}."
        )


def _check_checkpoint(value: Any) -> None:
    step = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if value is not None and value != "earliest" and not step:
        raise CommandError(
            f"checkpoint takes nothing, 'earliest' or a step, 0 or more, but got {value!r:.80}."
        )


# name: (None allowed, must be positive, exclusive upper bound)
_RANGES: dict[str, tuple[bool, bool, float | None]] = {
    "lr": (True, False, None),
    "momentum": (True, False, 1.0),
    "weight_decay": (True, False, None),
    "clip_threshold": (False, True, None),
    "max_steps_per_s": (True, True, None),
}


def _check_intervention(name: str, value: Any) -> None:
    """Settings of a remedy, fault, trial or rewind: known keys, usable values."""
    wanted = {} if value is None and name in ("lr_finder", "rewind") else value
    if not isinstance(wanted, dict):
        raise CommandError(f"{name} needs a dict of settings, but got {value!r:.80}.")
    unknown = sorted(set(wanted) - INTERVENTIONS[name])
    if unknown:
        known = ", ".join(sorted(INTERVENTIONS[name]))
        raise CommandError(f"{name} has no setting {unknown[0]!r}; choose from {known}.")
    actions = {
        "remedy": ("set", "reinitialize", "unfreeze"),
        "fault": ("inject", "reveal", "heal"),
    }.get(name)
    if actions is not None and wanted.get("action") not in actions:
        raise CommandError(
            f"action of {name} must be one of {', '.join(actions)}, but got "
            f"{wanted.get('action')!r}."
        )
    if name == "remedy" and wanted["action"] == "set":
        check(str(wanted.get("control")), wanted.get("value"))
    if name == "remedy" and wanted.get("method", "he") not in ("he", "xavier"):
        raise CommandError(f"method must be he or xavier, but got {wanted['method']!r}.")
    if (
        name == "fault"
        and wanted["action"] == "inject"
        and not isinstance(wanted.get("fault"), str)
    ):
        raise CommandError(f"fault must be the name of a fault, but got {wanted.get('fault')!r}.")
    for key in ("low", "high", "lr_factor", "steps"):
        number = wanted.get(key, 1)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1e6:
            raise CommandError(f"{key} of {name} must be a positive number, but got {number!r}.")
    if wanted.get("low", 0) >= wanted.get("high", math.inf):
        raise CommandError(
            f"low of {name} must be less than high, but got {short(wanted['low'], 6)}."
        )


INTERVENTIONS = {
    "remedy": frozenset(
        ("action", "control", "value", "module", "method", "text", "code", "quantity", "subject",
         "threshold", "side")
    ),
    "fault": frozenset(("action", "fault", "hidden", "number")),
    "lr_finder": frozenset(("steps", "low", "high")),
    "rewind": frozenset(("lr_factor", "resume")),
}  # fmt: skip
"""Commands that do more than change a control, and their settings; twice is twice as much."""

Name = Literal[
    "set", "pause", "resume", "run_steps", "stop", "capture_graph", "capture_backward",
    "remedy", "fault", "lr_finder", "rewind", "checkpoint",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One instruction to a run.

    Attributes:
        name: ``set`` changes one control; ``run_steps`` resumes for ``value`` steps and pauses
            again; ``capture_graph`` stores the autograd graph of the next step;
            ``capture_backward`` its backward pass node by node.
        control: the control that ``set`` changes, else empty.
        target: the optimizer or parameter group whose lr, momentum or weight_decay ``set``
            changes, or whose learning rate ``lr_finder`` tries, as :func:`target_of` reads it;
            empty for all. A learning rate for all is that of the first group; the others keep
            their ratios to it.
        value: the new value of the control, or the number of steps; for ``capture_backward``
            None or a dict: ``when`` is ``nonfinite`` to wait for a gradient that is NaN or
            infinite, ``module`` the path of a module to check by finite differences. ``remedy``
            acts (set a control, reinitialize or unfreeze a module) and is judged fifty steps
            later; ``fault`` injects, reveals or heals; ``lr_finder`` tries learning rates on a
            copy; ``rewind`` goes back to a kept state, and may lower the learning rate.
            ``checkpoint`` writes the state of a built-in run to its ``blobs/checkpoints``: the
            present one (None), or one that the time machine holds, by its step or ``earliest``.
        id: unique; a second command with the same id is ignored.
    """

    name: Name
    control: str = ""
    value: Any = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    target: str = ""

    def __post_init__(self) -> None:
        target_of(self.target)
        aimed = self.control in OF_OPTIMIZERS if self.name == "set" else self.name == "lr_finder"
        if self.target and not aimed:
            raise CommandError(
                f"Only {', '.join(OF_OPTIMIZERS)} and lr_finder have a target, but got "
                f"{self.target!r:.80} for {self.control or self.name}."
            )
        if self.name == "set":
            check(self.control, self.value)
        elif self.name == "run_steps":
            steps = self.value
            if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
                raise CommandError(
                    f"run_steps needs a whole number of steps, 1 or more, but got {steps!r}."
                )
        elif self.name == "capture_backward":
            _check_capture(self.value)
        elif self.name == "checkpoint":
            _check_checkpoint(self.value)
        elif self.name in INTERVENTIONS:
            _check_intervention(self.name, self.value)
        elif self.name not in ("pause", "resume", "stop", "capture_graph"):
            raise CommandError(f"There is no command named {self.name!r}.")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Command:
        """Raises CommandError when the row holds something no command can be."""
        try:
            fields = json.loads(text)
            known = {key: fields[key] for key in ("name", "control", "value", "id")}
            return cls(**known, target=fields.get("target", ""))  # older ones have no target
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise CommandError(f"Expected a command as JSON, but got {text[:80]!r}.") from error
