"""Learning rate schedules in words: their names, their arguments, and which values these take.

The arguments are those of PyTorch's schedulers (standard library only; the rates themselves are
computed in ``inspector/training/schedules.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from inspector.errors import CommandError

ARGUMENTS: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"step_size": None, "gamma": 0.1, "unit": "epoch"},
    "multi_step": {"milestones": None, "gamma": 0.1, "unit": "epoch"},
    "exponential": {"gamma": 0.95, "unit": "epoch"},
    "cosine": {"T_max": None, "eta_min": 0.0, "unit": "step"},
    "one_cycle": {
        "max_lr": None,
        "total_steps": None,
        "pct_start": 0.3,
        "anneal_strategy": "cos",
        "div_factor": None,
        "final_div_factor": 1e4,
        "three_phase": False,
        "unit": "step",
    },
    "warmup_cosine": {
        "warmup_steps": None,
        "total_steps": None,
        "max_lr": None,
        "start_factor": None,
        "eta_min": 0.0,
        "unit": "step",
    },
    "reduce_on_plateau": {
        "factor": 0.1,
        "patience": 10,
        "threshold": 1e-4,
        "cooldown": 0,
        "min_lr": 0.0,
        "unit": "epoch",
    },
}
"""Every schedule with its arguments and their defaults; None is filled in from what is left of
the run: see ``resolve`` in ``inspector/training/schedules.py``. ``unit`` is what the arguments
count and how often the rate changes: ``step`` or ``epoch``."""

SCHEDULES = tuple(ARGUMENTS)


def check_schedule(value: Any) -> dict[str, Any] | None:
    """The schedule as it was given, or CommandError with what was expected of it."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("name") not in ARGUMENTS:
        raise CommandError(
            f"schedule must be a dict with a name, one of {', '.join(SCHEDULES)}, "
            f"but got {value!r:.80}."
        )
    name = value["name"]
    known = ARGUMENTS[name]
    for key, given in value.items():
        if key == "name":
            continue
        if key not in known:
            choices = f"choose from {', '.join(known)}" if known else "it takes none"
            raise CommandError(f"Schedule {name} has no argument {key!r}; {choices}.")
        wanted, fits = _VALUES[key]
        if not (fits(given) or (given is None and known[key] is None)):
            raise CommandError(f"{key} of schedule {name} must be {wanted}, but got {given!r:.80}.")
    if name == "reduce_on_plateau" and value.get("unit", "epoch") != "epoch":
        raise CommandError("reduce_on_plateau goes by epochs: it looks at the validation loss.")
    return dict(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _milestones(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(_whole(one, 1) for one in value)
        and list(value) == sorted(set(value))
    )


_COUNT = "a whole number, 1 or more", lambda value: _whole(value, 1)
_COUNT_OR_NONE = "a whole number, 0 or more", lambda value: _whole(value, 0)
_POSITIVE = "a number above 0", lambda value: _number(value) and value > 0
_NOT_NEGATIVE = "a number, 0 or more", lambda value: _number(value) and value >= 0
_SHARE = "a number above 0 and below 1", lambda value: _number(value) and 0 < value < 1
_UP_TO_ONE = "a number above 0, at most 1", lambda value: _number(value) and 0 < value <= 1

_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "step_size": _COUNT,
    "T_max": _COUNT,
    "total_steps": _COUNT,
    "warmup_steps": _COUNT_OR_NONE,
    "patience": _COUNT_OR_NONE,
    "cooldown": _COUNT_OR_NONE,
    "milestones": ("a list of rising whole numbers", _milestones),
    "gamma": _POSITIVE,
    "factor": _SHARE,
    "max_lr": _POSITIVE,
    "pct_start": _SHARE,
    "start_factor": _UP_TO_ONE,
    "div_factor": _POSITIVE,
    "final_div_factor": _POSITIVE,
    "threshold": _NOT_NEGATIVE,
    "eta_min": _NOT_NEGATIVE,
    "min_lr": _NOT_NEGATIVE,
    "anneal_strategy": ("cos or linear", lambda value: value in ("cos", "linear")),
    "three_phase": ("true or false", lambda value: isinstance(value, bool)),
    "unit": ("step or epoch", lambda value: value in ("step", "epoch")),
}
