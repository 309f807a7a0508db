"""Loss, optimizer and schedule in a script."""

from __future__ import annotations

import math
from typing import Any

from torch import optim

from inspector.capture.settings import OptimizerSettings
from inspector.exports.script import pieces
from inspector.exports.script.facts import Facts
from inspector.exports.script.text import Imports, Lines, call, literal, source_of
from inspector.training.losses import build_loss
from inspector.training.optimizers import CLASSES, build_optimizer, optimizer_arguments
from inspector.training.schedules import Schedule, resolve


def write_loss(facts: Facts, imports: Imports, definitions: list[str], main: Lines) -> None:
    """Adds ``loss_fn``, unless the user's own step computes the loss."""
    config, loss_fn = facts.config, facts.task.loss_fn
    if loss_fn is None:
        return
    built = build_loss(config.loss, facts.task.kind, config.loss_args,
                       outputs=facts.task.source.outputs)  # fmt: skip
    given: list[str] = []
    for key, value in config.loss_args.items():
        is_tensor = key in ("weight", "pos_weight") and value is not None
        given.append(
            f"{key}={f'torch.tensor({value!r}, dtype=torch.float32)' if is_tensor else repr(value)}"
        )
    cls = type(built)
    name = cls.__name__
    if cls.__module__.startswith("torch."):
        name = f"nn.{name}"
    else:
        definitions += source_of(imports, cls)
    imports.add("from torch import nn")
    main.add(f"loss_fn = {name}({', '.join(given)})")


def write_optimizer(facts: Facts, imports: Imports, main: Lines) -> None:
    """Adds ``optimizer`` over the parameters that are trained."""
    config, optimizer = facts.config, facts.task.optimizer
    cls = CLASSES[config.optimizer]
    given = optimizer_arguments(cls, config)
    imports.add("import torch")
    every = all(p.requires_grad for p in facts.task.model.parameters())
    what = "model.parameters()" if every else "[p for p in model.parameters() if p.requires_grad]"
    if groups := _groups(facts, optimizer):
        main.add("named = dict(model.named_parameters())", "groups = [", *groups, "]")
        what = "groups"
    rest = call("", given)[1:-1]
    main.add(f"optimizer = torch.optim.{cls.__name__}({what}, {rest})")


def _groups(facts: Facts, optimizer: optim.Optimizer) -> list[str]:
    """A line for each group of parameters; none where there is only PyTorch's usual one."""
    regrouped = facts.origin.regrouped(facts.task.model, optimizer) if facts.origin else []
    if regrouped:  # their settings are in the checkpoint
        return [f'    {{"params": [{_members(names)}]}},' for names in regrouped]
    if not facts.config.param_groups:
        return []
    names = {id(p): name for name, p in facts.task.model.named_parameters()}
    lines = []
    for group in optimizer.param_groups:
        settings = "".join(
            f", {literal(key)}: {literal(value)}"
            for key, value in group.items()
            if key != "params" and value != optimizer.defaults.get(key)
        )
        members = _members([names[id(p)] for p in group["params"]])
        lines.append(f'    {{"params": [{members}]{settings}}},')
    return lines


def _members(names: list[str]) -> str:
    return ", ".join(f"named[{literal(name)}]" for name in names)


class Scheduling:
    """The learning rate schedules of a run.

    A schedule that nobody touched is PyTorch's scheduler on the optimizer. Where rates were set by
    hand meanwhile, or schedules exchanged, ``Plan`` stands between the two.

    Attributes:
        rates: learning rates with which another optimizer takes over from a checkpoint's; None
            where the rates are the optimizer's own or the checkpoint's.
    """

    def __init__(self, facts: Facts) -> None:
        origin, by_hand = facts.origin, facts.ever("lr") or facts.ever("unfreeze")
        self._kept = origin.part("schedule") if origin else {}
        self.rates: list[float] | None = None
        if origin:
            self.first = self._kept["resolved"]
            groups = len(origin.state["groups"])
            by_hand |= bool(self._kept["bends"]) or groups != len(self._kept["plan"])
            if not origin.keeps(facts.task.optimizer):
                self.rates, by_hand = _taken_over(facts), True
        else:
            self.first = _resolved(facts, facts.task.optimizer)
        self.switched = facts.ever("schedule")
        self.wanted = self.first["name"] != "constant" or self.switched
        self.planned = self.wanted and (self.switched or by_hand)
        self.all = [self.first] + [
            value for _, name, value in facts.changes if name == "schedule" and value
        ]
        self._by_epoch = {
            one.get("unit") == "epoch" for one in self.all if one["name"] != "constant"
        }

    def write(self, imports: Imports, definitions: list[str], main: Lines) -> None:
        """Adds ``scheduler`` (and ``plan``) where a schedule is not constant."""
        if not self.wanted:
            return
        imports.add("from torch.optim import lr_scheduler")
        if self.planned:
            definitions += source_of(imports, pieces.Plan)
        self.begin(self.first, main)

    def restore(self, imports: Imports, definitions: list[str], main: Lines) -> None:
        """Adds what lets the schedule go on from the checkpoint."""
        if not self.wanted:
            return
        kept = 'checkpoint["parts"]["schedule"]'
        if self.planned:
            definitions += source_of(imports, pieces.restore_plan)
            main.add(f"restore_plan(plan, scheduler, {kept})")
        else:
            definitions += source_of(imports, pieces.restore_scheduler)
            main.add(f"restore_scheduler(optimizer, scheduler, {kept})")
        if self._kept["left"] is not None:
            main.add(f"left = {self._kept['left']}")

    def begin(self, resolved: dict[str, Any], main: Lines) -> None:
        """Adds the lines that start a schedule at the rates in force."""
        target = "optimizer"
        if self.planned:
            main.add("plan = Plan(optimizer)")
            target = "plan.own"
        main.add(*_construction(resolved, target))
        if self.switched:
            main.add(f"by_epoch = {resolved.get('unit') == 'epoch'}")
        left = _length(resolved)
        if self.switched or left is not None:
            counted = 'float("inf")' if left is None else left
            main.add(f"left = {counted}  # times that the rate still changes")
        if self.planned:
            main.add("plan.follow()")

    def after_step(self, main: Lines) -> None:
        if not self.wanted or (not self.planned and self._by_epoch == {True}):
            return
        if self.planned:
            main.add("plan.take(plan.changed())")
        if self._by_epoch != {True}:
            self._advance(main, "not by_epoch" if self.switched else "", [])
        if self.planned:
            main.add("plan.follow()")

    def after_epoch(self, main: Lines) -> None:
        if not self.wanted or self._by_epoch in ({False}, set()):
            return
        plateau = any(one["name"] == "reduce_on_plateau" for one in self.all)
        if self.switched:
            main.open("if by_epoch:")
        if self.planned:
            main.add("by_hand = plan.changed()")
        self._advance(main, "", ["val_loss"] if plateau else [])
        if self.planned:
            main.add("plan.take(by_hand)", "plan.follow()")
        if self.switched:
            main.close()

    def _advance(self, main: Lines, condition: str, arguments: list[str]) -> None:
        counted = self.switched or _length(self.first) is not None
        parts = [
            part for part in (condition, "scheduler is not None" if self.switched else "") if part
        ]
        parts += ["left > 0"] if counted else []
        opened = bool(parts)
        if opened:
            main.open(f"if {' and '.join(parts)}:")
        if counted:
            main.add("left -= 1")
        if self.planned:
            main.add("plan.own.step()")
        plateau = bool(arguments)
        if plateau and self.switched:
            main.add("plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)",
                     "scheduler.step(val_loss) if plateau else scheduler.step()")  # fmt: skip
        else:
            main.add(f"scheduler.step({', '.join(arguments)})")
        if opened:
            main.close()


def _resolved(facts: Facts, optimizer: optim.Optimizer) -> dict[str, Any]:
    """The schedule that a run begins with; :class:`inspector.training.loop.Loop` does the same."""
    task, accumulate, lr = facts.task, facts.controls.accumulate, facts.controls.lr
    per_epoch = math.ceil(task.batches_per_epoch / accumulate)
    return resolve(
        facts.controls.schedule,
        float(optimizer.param_groups[0]["lr"]) if lr is None else lr,
        steps=facts.config.steps or facts.config.epochs * per_epoch,
        steps_per_epoch=per_epoch,
    )


def _taken_over(facts: Facts) -> list[float]:
    """The rates of a new optimizer, after the controls and the schedule in force have set them."""
    optimizer = build_optimizer(facts.task.model, facts.config)
    if facts.controls.lr is not None:
        OptimizerSettings(optimizer).apply(optimizer, "lr", facts.controls.lr)
    Schedule(optimizer, _resolved(facts, optimizer))
    return [float(group["lr"]) for group in optimizer.param_groups]


def _length(resolved: dict[str, Any]) -> int | None:
    """Times that the rate changes; None where that has no end."""
    match resolved["name"]:
        case "one_cycle":
            return int(resolved["total_steps"]) - 1
        case "warmup_cosine":
            return int(resolved["total_steps"])
        case "cosine":
            return int(resolved["T_max"])
    return None


def _construction(of: dict[str, Any], target: str) -> list[str]:
    groups = f"{target}.param_groups"
    match of["name"]:
        case "constant":
            return ["scheduler = None"]
        case "step":
            return [f"scheduler = lr_scheduler.StepLR({target}, {of['step_size']}, {of['gamma']})"]
        case "multi_step":
            return [
                f"scheduler = lr_scheduler.MultiStepLR({target}, {of['milestones']}, {of['gamma']})"
            ]
        case "exponential":
            return [f"scheduler = lr_scheduler.ExponentialLR({target}, {of['gamma']})"]
        case "cosine":
            return [
                f"scheduler = lr_scheduler.CosineAnnealingLR({target}, {of['T_max']}, "
                f"{of['eta_min']})"
            ]
        case "one_cycle":
            given = {
                key: of[key]
                for key in ("total_steps", "pct_start", "anneal_strategy", "div_factor",
                            "final_div_factor", "three_phase")
            }  # fmt: skip
            return [
                f'first = {groups}[0]["lr"]',
                f'peaks = [{of["max_lr"]} * (group["lr"] / first) for group in {groups}]',
                f"scheduler = lr_scheduler.OneCycleLR({target}, peaks, cycle_momentum=False, "
                f"{call('', given)[1:-1]})",
            ]
        case "warmup_cosine":
            warm = min(of["warmup_steps"], of["total_steps"] - 1)
            rest = max(1, of["total_steps"] - warm)
            lines = [
                f'first = {groups}[0]["lr"]',
                f"for group in {groups}:",
                f'    group["lr"] = {of["max_lr"]} * (group["lr"] / first)',
                f"cosine = lr_scheduler.CosineAnnealingLR({target}, {rest}, {of['eta_min']})",
            ]
            if warm <= 0:
                return [*lines, "scheduler = cosine"]
            return [
                *lines,
                f"warm_up = lr_scheduler.LinearLR({target}, {of['start_factor']}, "
                f"total_iters={warm})",
                f"scheduler = lr_scheduler.SequentialLR({target}, [warm_up, cosine], [{warm}])",
            ]
        case _:
            names = ("factor", "patience", "threshold", "cooldown", "min_lr")
            settings = call("", {name: of[name] for name in names})[1:-1]
            return [f"scheduler = lr_scheduler.ReduceLROnPlateau({target}, {settings})"]
