"""Learning rate schedules: PyTorch's own, started at the rate in force and bent by hand.

A schedule is a dict with ``name`` and the arguments of PyTorch's scheduler (see
``inspector/schedules.py``). The scheduler runs on a *plan*, an optimizer without parameters;
its rates are copied to the real one, multiplied by what was changed by hand meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, optim
from torch.optim import lr_scheduler

from inspector.errors import CommandError
from inspector.schedules import ARGUMENTS, check_schedule

_WARM_UP = 0.1  # of the steps
_WARM_START = 0.01  # of the peak
_DIV_FACTOR = 25.0  # OneCycleLR's default


def resolve(
    schedule: dict[str, Any] | None,
    lr: float,
    *,
    steps: int,
    steps_per_epoch: int,
    ongoing: bool = False,
) -> dict[str, Any]:
    """The schedule with a number for everything that was left open.

    Args:
        lr: the learning rate in force. At the start of a run it is the peak of a schedule that
            warms up; mid-run (``ongoing``) every schedule starts at it.
        steps: optimizer steps that are left.
        steps_per_epoch: 0 if it is not known.

    Raises:
        CommandError: an argument cannot be used, or a schedule by epochs has none to go by.
    """
    given = check_schedule(schedule) or {"name": "constant"}
    made = {**ARGUMENTS[given["name"]], **given}
    length = steps
    if made.get("unit") == "epoch":
        _refuse_endless(made, steps_per_epoch)
        length = math.ceil(steps / steps_per_epoch) if steps_per_epoch else 0
    total = made.get("total_steps", length) or max(1, length)
    peak = made.get("max_lr", lr) or lr
    left_open = {
        "T_max": total,
        "total_steps": total,
        "step_size": max(1, total // 3),
        "milestones": sorted({max(1, total // 2), max(1, total * 3 // 4)}),
        "max_lr": peak,
        "warmup_steps": max(1, round(_WARM_UP * total)),
        "start_factor": min(1.0, lr / peak) if ongoing or made.get("max_lr") else _WARM_START,
        "div_factor": peak / lr if ongoing or made.get("max_lr") else _DIV_FACTOR,
    }
    return {
        key: left_open[key] if value is None and key in left_open else value
        for key, value in made.items()
    }


def _refuse_endless(schedule: dict[str, Any], steps_per_epoch: int) -> None:
    """By epochs of unknown length, nothing can be left open."""
    needed = [key for key in ("step_size", "milestones", "T_max", "total_steps") if key in schedule]
    if not steps_per_epoch and any(schedule[key] is None for key in needed):
        raise CommandError(
            f"The loader does not say how many batches an epoch has, so {needed[0]} of schedule "
            f"{schedule['name']} cannot be filled in; give it, or set unit to step."
        )


def preview(
    schedule: dict[str, Any] | None,
    lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    ongoing: bool = False,
) -> list[float]:
    """The learning rate of each coming step, by the real scheduler on an optimizer of its own.

    ``reduce_on_plateau`` waits for the validation loss, which is not known ahead: its preview
    stays at ``lr``. See :func:`resolve` for the arguments and errors.
    """
    (rates,) = previews(schedule, [lr], total_steps, steps_per_epoch, ongoing=ongoing)
    return rates


def previews(
    schedule: dict[str, Any] | None,
    rates: Sequence[float],
    total_steps: int,
    steps_per_epoch: int,
    *,
    ongoing: bool = False,
) -> list[list[float]]:
    """The same for an optimizer of several parameter groups: a list for each, in their order.

    ``rates`` are those of the groups; what the schedule leaves open goes by the first one.
    """
    resolved = resolve(
        schedule, rates[0], steps=total_steps, steps_per_epoch=steps_per_epoch, ongoing=ongoing
    )
    dummy = _plan(rates)
    running = Schedule(dummy, resolved)
    found: list[list[float]] = [[] for _ in rates]
    for step in range(1, total_steps + 1):
        for seen, lr in zip(found, _rates(dummy), strict=True):
            seen.append(lr)
        running.after_step()
        if steps_per_epoch and step % steps_per_epoch == 0:
            running.after_epoch()
    return found


class Schedule:
    """A schedule at work on the parameter groups of an optimizer.

    A rate that somebody sets by hand holds for the coming step, and the schedule goes on from
    there in proportion. At its end the rate stays.

    Attributes:
        resolved: its arguments, as :func:`resolve` gives them.
    """

    def __init__(self, optimizer: optim.Optimizer, resolved: dict[str, Any]) -> None:
        self._optimizer = optimizer
        self.switch(resolved)

    def switch(self, resolved: dict[str, Any]) -> None:
        """Begins anew, from the rates in force."""
        self._begin(resolved, _plan(_rates(self._optimizer)))
        self._write()

    def _begin(self, resolved: dict[str, Any], plan: optim.Optimizer) -> None:
        self.resolved = resolved
        self._plan = plan
        self._scheduler = _scheduler(plan, resolved)
        self._left = _length(resolved)
        self._by_epoch = resolved.get("unit") == "epoch"
        self._bends: dict[int, tuple[float, float]] = {}
        self._written: list[float] = []

    def after_step(self) -> None:
        """Goes on to the next step's rate, before anybody can set one by hand."""
        self._bend()
        if not self._by_epoch:
            self._advance()
        self._write()

    def after_epoch(self, val_loss: float | None = None) -> None:
        """Goes on to the next epoch's rate; ``reduce_on_plateau`` looks at the validation loss."""
        if not self._by_epoch:
            return
        by_hand = self._set_by_hand()
        if not isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._advance()
        elif val_loss is not None:
            self._plan.step()
            self._scheduler.step(val_loss)
        self._bend(by_hand)
        self._write()

    def state_dict(self) -> dict[str, Any]:
        return {
            "resolved": self.resolved,
            "plan": [
                {key: value for key, value in group.items() if key != "params"}
                for group in self._plan.param_groups
            ],
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "bends": dict(self._bends),
            "left": self._left,
            "written": list(self._written),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another one was; the optimizer's rates are part of its own state."""
        self._begin(state["resolved"], _plan([group["lr"] for group in state["plan"]]))
        for group, saved in zip(self._plan.param_groups, state["plan"], strict=True):
            group.update(saved)
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        self._bends, self._left = dict(state["bends"]), state["left"]
        self._written = list(state["written"])

    def _advance(self) -> None:
        if self._scheduler is None or self._left == 0:
            return
        if self._left is not None:
            self._left -= 1
        self._plan.step()  # the scheduler warns if it is called first
        self._scheduler.step()

    def _set_by_hand(self) -> dict[int, float]:
        """Groups whose rate is not the one that was written, or that are new, with their rate."""
        now = _rates(self._optimizer)
        known = self._written
        return {i: lr for i, lr in enumerate(now) if i >= len(known) or lr != known[i]}

    def _bend(self, by_hand: dict[int, float] | None = None) -> None:
        """Rates that were set by hand stand for the plan's of the same moment."""
        for number, lr in (self._set_by_hand() if by_hand is None else by_hand).items():
            self._bends[number] = (lr, self._planned(number))

    def _planned(self, number: int) -> float:
        """The plan's rate of a group; groups that came later go with the first one."""
        groups = self._plan.param_groups
        return float(groups[number if number < len(groups) else 0]["lr"])

    def _write(self) -> None:
        for number, group in enumerate(self._optimizer.param_groups):
            lr = self._planned(number)
            if number in self._bends:
                by_hand, instead_of = self._bends[number]
                # Exactly the rate set, while the plan stays; a plan at 0 has come to its end.
                lr = by_hand * (lr / instead_of) if instead_of else by_hand
            set_lr(group, lr)
        self._written = _rates(self._optimizer)


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Sets a group's learning rate, which may be a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def _rates(optimizer: optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def _plan(rates: Sequence[float]) -> optim.Optimizer:
    return optim.SGD([{"params": [torch.zeros(())], "lr": lr} for lr in rates], lr=rates[0])


def _length(resolved: dict[str, Any]) -> int | None:
    """Advances until the schedule is at its end and stays there; None if it has no end."""
    if resolved["name"] == "one_cycle":
        return int(resolved["total_steps"]) - 1
    if resolved["name"] == "warmup_cosine":
        return int(resolved["total_steps"])
    return int(resolved["T_max"]) if resolved["name"] == "cosine" else None


def _scheduler(plan: optim.Optimizer, of: dict[str, Any]) -> Any:
    """PyTorch's scheduler on the plan; None for a constant rate."""
    groups = plan.param_groups
    shares = [group["lr"] / groups[0]["lr"] if groups[0]["lr"] else 1.0 for group in groups]
    match of["name"]:
        case "step":
            return lr_scheduler.StepLR(plan, of["step_size"], of["gamma"])
        case "multi_step":
            return lr_scheduler.MultiStepLR(plan, of["milestones"], of["gamma"])
        case "exponential":
            return lr_scheduler.ExponentialLR(plan, of["gamma"])
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(plan, of["T_max"], of["eta_min"])
        case "one_cycle":
            return lr_scheduler.OneCycleLR(
                plan,
                [of["max_lr"] * share for share in shares],
                total_steps=of["total_steps"],
                pct_start=of["pct_start"],
                anneal_strategy=of["anneal_strategy"],
                cycle_momentum=False,
                div_factor=of["div_factor"],
                final_div_factor=of["final_div_factor"],
                three_phase=of["three_phase"],
            )
        case "warmup_cosine":
            for group, share in zip(groups, shares, strict=True):
                group["lr"] = of["max_lr"] * share
            warm = min(of["warmup_steps"], of["total_steps"] - 1)
            rest = max(1, of["total_steps"] - warm)
            cosine = lr_scheduler.CosineAnnealingLR(plan, rest, of["eta_min"])
            return (
                lr_scheduler.SequentialLR(
                    plan,
                    [lr_scheduler.LinearLR(plan, of["start_factor"], total_iters=warm), cosine],
                    milestones=[warm],
                )
                if warm > 0
                else cosine
            )
        case "reduce_on_plateau":
            names = ("factor", "patience", "threshold", "cooldown", "min_lr")
            return lr_scheduler.ReduceLROnPlateau(plan, **{name: of[name] for name in names})
        case "constant":
            return None
    raise CommandError(f"There is no schedule named {of['name']!r}.")
