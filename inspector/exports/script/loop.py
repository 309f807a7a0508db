"""The training loop of a script, with what was changed by hand at the steps where it was."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

from torch import optim

from inspector.commands import Controls
from inspector.exports.by_hand import InGroup
from inspector.exports.script import pieces
from inspector.exports.script.continuing import write_place, write_state
from inspector.exports.script.data import Data
from inspector.exports.script.facts import Facts
from inspector.exports.script.optimisation import Scheduling
from inspector.exports.script.origin import Origin
from inspector.exports.script.text import Imports, Lines, literal, source_of
from inspector.interventions.weights import reinitialize, unfreeze
from inspector.training.own.batches import size_of, to_device

_ALL_TRAINED = "trainable |= {name for name, p in model.named_parameters() if p.requires_grad}"
_VARIABLES = ("zero_grad", "clip", "clip_threshold", "accumulate", "eval_modules")


class Loop:
    """Writes the loop of a run: only what the run made use of is in it."""

    def __init__(self, facts: Facts, data: Data, imports: Imports, definitions: list[str]) -> None:
        self._facts, self._data = facts, data
        self._imports, self._definitions = imports, definitions
        config = facts.config
        self._first = facts.controls
        self._schedule = Scheduling(facts)
        self._device = facts.task.device.type
        self._fp16 = config.precision == "fp16"
        self._autocast = {"bf16": "bfloat16", "fp16": "float16"}.get(config.precision)
        self._variables = {
            name
            for name in _VARIABLES
            if facts.ever(name) or getattr(self._first, name) != getattr(Controls(), name)
        }
        if "clip" in self._variables:
            self._variables.add("clip_threshold")
        elif "clip_threshold" in self._variables:
            self._variables.remove("clip_threshold")
        self._freezes = facts.ever("frozen") or bool(self._first.frozen)
        self._stops_early = config.early_stopping > 0
        self._own_step = facts.task.kind == "own"

    def write(self, main: Lines) -> None:
        """Adds everything from the first controls to the end of training."""
        facts, config, origin = self._facts, self._facts.config, self._facts.origin
        self._imports.add("import torch")
        self._settings(main)
        self._schedule.write(self._imports, self._definitions, main)
        if self._fp16:
            main.add(f"scaler = torch.amp.GradScaler({literal(self._device)})")
        self._begin(main)
        if origin is not None:
            self._go_on(origin, main)
        for step, name, value in facts.changes:
            if step == facts.first:
                self._by_hand(main, name, value)
        main.add(f"step = {facts.first}")
        if self._fp16:
            main.add(f"begun = {origin.begun if origin else 0}")
        self._train_mode(main)
        limit = facts.last if facts.last is not None else config.steps
        if limit is not None and limit <= facts.first:
            return
        if self._stops_early:
            self._patience(origin, main)
        first = origin.epoch if origin else 0
        if limit is None:
            main.open(f"for epoch in range({f'{first}, ' if first else ''}{config.epochs}):")
        else:
            self._imports.add("from itertools import count")
            main.open(f"for epoch in count({first or ''}):")
        self._epoch(main, limit)
        main.close()

    # ------------------------------------------------------------ before the first step

    def _settings(self, main: Lines) -> None:
        """Settings of the optimizer that the first controls change; a checkpoint has its own."""
        rates = [float(g["lr"]) for g in self._facts.task.optimizer.param_groups]
        back = (None, *(InGroup(f"0/{number}", None) for number in range(len(rates))))
        if any(name == "lr" and value in back for _, name, value in self._facts.changes):
            main.add(f"first_rates = {rates!r}")
        origin = self._facts.origin
        if origin is not None and origin.keeps(self._facts.task.optimizer):
            return
        for name in ("lr", "momentum", "weight_decay"):
            value = getattr(self._first, name)
            if value is not None and self._has(name):
                self._by_hand(main, name, value)

    def _has(self, setting: str) -> bool:
        group = self._facts.task.optimizer.param_groups[0]
        return setting in group or (setting == "momentum" and "betas" in group)

    def _begin(self, main: Lines) -> None:
        for name in _VARIABLES:
            if name in self._variables:
                main.add(f"{name} = {literal(getattr(self._first, name))}")
        if self._freezes:
            self._definitions += source_of(self._imports, pieces.freeze)
            named = "model.named_parameters(remove_duplicate=False)"
            main.add(f"trainable = {{name for name, p in {named} if p.requires_grad}}")
            if self._first.frozen:
                main.add(f"freeze(model, {literal(self._first.frozen)}, trainable)")
        if "eval_modules" in self._variables:
            self._definitions += source_of(self._imports, pieces.train_mode)

    def _go_on(self, origin: Origin, main: Lines) -> None:
        """Everything goes on from a checkpoint."""
        write_state(self._facts, origin, main)
        self._schedule.restore(self._imports, self._definitions, main)
        if self._schedule.rates is not None:
            self._definitions += source_of(self._imports, pieces.set_rates)
            main.add(f"set_rates(optimizer, {self._schedule.rates!r})")
        if self._fp16 and origin.part("loss scaling"):
            main.add('scaler.load_state_dict(checkpoint["parts"]["loss scaling"])')
        if self._freezes:
            main.add(_ALL_TRAINED)
        write_place(self._facts, origin, self._imports, self._definitions, main)

    def _patience(self, origin: Origin | None, main: Lines) -> None:
        kept = origin.part("early stopping") if origin else {}
        best = kept.get("best", math.inf)
        lowest = repr(best) if math.isfinite(best) else 'float("inf")'
        main.add(f"best, waited = {lowest}, {kept.get('waited', 0)}")

    def _train_mode(self, main: Lines) -> None:
        held = "eval_modules" in self._variables
        main.add("train_mode(model, eval_modules)" if held else "model.train()")

    # ------------------------------------------------------------ an epoch

    def _epoch(self, main: Lines, limit: int | None) -> None:
        several = "accumulate" in self._variables
        loader = "remaining" if self._facts.origin else "train_loader"
        if several:
            self._imports.add("from itertools import islice")
            main.add(f"batches = iter({loader})")
            main.open("while group := list(islice(batches, accumulate)):")
        else:
            main.open(f"for batch in {loader}:")
        self._step(main, several)
        self._schedule.after_step(main)
        self._changes(main)
        stopped = self._facts.last is not None
        # Steps that loss scaling left out count as steps that were to be made.
        over = f"if {'begun' if self._fp16 and not stopped else 'step'} == {limit}:"
        if limit is not None:
            main.add(over, "    break")
        main.close()
        if limit is not None and stopped:
            main.add(over, "    break")
        self._validate(main)
        if limit is not None and not stopped:
            main.add(over, "    break")
        if self._facts.origin:
            main.add("remaining = train_loader")

    def _step(self, main: Lines, several: bool) -> None:
        if isinstance(self._facts.task.optimizer, optim.LBFGS):
            main.open("def closure() -> torch.Tensor:")
            self._gradients(main, several, returns=True)
            main.close()
            main.add("loss = optimizer.step(closure)", "step += 1")
            return
        self._gradients(main, several)
        if not self._fp16:
            self._clip(main)
            main.add("optimizer.step()", "step += 1")
            return
        main.add("scaler.unscale_(optimizer)")
        self._clip(main)
        main.add("scale = scaler.get_scale()", "scaler.step(optimizer)", "scaler.update()")
        main.add("begun += 1")
        main.add("step += scaler.get_scale() >= scale  # not when gradients overflowed")

    def _gradients(self, main: Lines, several: bool, *, returns: bool = False) -> None:
        if "zero_grad" in self._variables:
            main.open("if zero_grad:")
        main.add("optimizer.zero_grad()")
        if "zero_grad" in self._variables:
            main.close()
        if several:
            main.open("for batch in group:")
        main.add("loss = loss_of(batch)")
        loss = "(loss / len(group))" if several else "loss"
        main.add(f"scaler.scale({loss}).backward()" if self._fp16 else f"{loss}.backward()")
        if several:
            main.close()
        if returns:
            self._clip(main)
            main.add("return loss")

    def write_loss_of(self, main: Lines) -> None:
        """Adds ``loss_of(batch)``; held-out batches may have one of their own."""
        self._imports.add("from typing import Any")
        self._loss_of(main, "loss_of", "training_step")
        if self._judges_otherwise:
            self._loss_of(main, "val_loss_of", "validation_step")

    @property
    def _judges_otherwise(self) -> bool:
        """Whether held-out batches are judged by the user's own ``validation_step``."""
        return self._facts.own.validation_step is not None and self._facts.validates

    def _loss_of(self, main: Lines, name: str, own_step: str) -> None:
        main.open(f"def {name}(batch: Any) -> torch.Tensor:")
        if self._autocast:
            main.open(
                f"with torch.autocast({literal(self._device)}, dtype=torch.{self._autocast}):"
            )
        self._forward(main, own_step)
        main.close(2 if self._autocast else 1)
        main.add("")

    def _forward(self, main: Lines, own_step: str) -> None:
        if self._device != "cpu":
            self._definitions += source_of(self._imports, to_device)
            main.add("batch = to_device(batch, device)")
        if self._own_step:
            main.add(f"result = {own_step}(model, batch)",
                     'return result["loss"] if isinstance(result, dict) else result')  # fmt: skip
            return
        main.add("inputs, targets = batch")
        inputs, targets = self._data.inputs, self._data.targets
        if self._data.echo:
            if inputs != "inputs":
                main.add(f"inputs = {inputs}")
            main.add("return loss_fn(model(inputs), inputs)")
        else:
            main.add(f"return loss_fn(model({inputs}), {targets})")

    def _clip(self, main: Lines) -> None:
        if "clip" not in self._variables:
            return
        main.add('parameters = [p for g in optimizer.param_groups for p in g["params"]]')
        main.add('if clip == "norm":',
                 "    torch.nn.utils.clip_grad_norm_(parameters, clip_threshold)",
                 'elif clip == "value":',
                 "    torch.nn.utils.clip_grad_value_(parameters, clip_threshold)")  # fmt: skip

    # ------------------------------------------------------------ by hand

    def _changes(self, main: Lines) -> None:
        for step, group in groupby(self._facts.changes, key=lambda change: change[0]):
            if step <= self._facts.first:
                continue
            main.open(f"if step == {step}:")
            for _, name, value in group:
                self._by_hand(main, name, value)
            main.close()

    def _by_hand(self, main: Lines, name: str, value: Any) -> None:
        if isinstance(value, InGroup):
            self._in_group(main, name, value.group, value.value)
        elif name == "lr" and value is None:
            self._definitions += source_of(self._imports, pieces.set_rates)
            main.add("set_rates(optimizer, first_rates)")
        elif name in ("lr", "momentum"):
            setter = {"lr": pieces.set_lr, "momentum": pieces.set_momentum}[name]
            self._definitions += source_of(self._imports, setter)
            value = self._first_value(name) if value is None else value
            main.add(f"set_{name}(optimizer, {value!r})")
        elif name == "weight_decay":
            value = self._first_value(name) if value is None else value
            main.add("for settings in optimizer.param_groups:",
                     f'    settings["weight_decay"] = {value!r}')  # fmt: skip
        elif name == "reinitialize":
            self._definitions += source_of(self._imports, reinitialize)
            what = f"{literal(value['module'])}, {literal(value['method'])}"
            main.add("with torch.random.fork_rng():",
                     f"    torch.manual_seed({value['seed']})",
                     f"    reinitialize(model, [optimizer], {what})")  # fmt: skip
        elif name == "unfreeze":
            self._definitions += source_of(self._imports, unfreeze)
            main.add(f"unfreeze(model, [optimizer], {literal(value['module'])})")
            if self._freezes:
                main.add(_ALL_TRAINED)
        elif name == "schedule":
            self._schedule.begin(value, main)
        elif name == "frozen":
            main.add(f"freeze(model, {literal(tuple(value or ()))}, trainable)")
        elif name == "eval_modules":
            main.add(
                f"eval_modules = {literal(tuple(value or ()))}", "train_mode(model, eval_modules)"
            )
        elif name in self._variables:
            main.add(f"{name} = {literal(value)}")

    def _in_group(self, main: Lines, name: str, number: int, value: Any) -> None:
        """Sets one parameter group only."""
        settings = f"optimizer.param_groups[{number}]"
        if value is None and name == "lr":
            main.add(f'{settings}["lr"] = first_rates[{number}]')
            return
        value = self._first_value(name, number) if value is None else value
        if name == "momentum" and "betas" in self._facts.task.optimizer.defaults:
            main.add(f'{settings}["betas"] = ({value!r}, *{settings}["betas"][1:])')
        else:
            main.add(f"{settings}[{literal(name)}] = {value!r}")

    def _first_value(self, name: str, number: int = 0) -> Any:
        groups = self._facts.task.optimizer.param_groups
        group = groups[min(number, len(groups) - 1)]  # one may have come later
        return group["betas"][0] if name == "momentum" and "betas" in group else group.get(name)

    # ------------------------------------------------------------ held-out parts

    def _validate(self, main: Lines) -> None:
        if not self._facts.validates:
            self._schedule.after_epoch(main)
            return
        self._definitions += source_of(self._imports, pieces.mean_loss)
        judged = "val_loss_of" if self._judges_otherwise else "loss_of"
        sized = ""
        if self._own_step:
            self._definitions += source_of(self._imports, size_of)
            sized = ", size_of"
        main.add(f"val_loss = mean_loss(model, val_loader, {judged}{sized})")
        self._train_mode(main)
        self._schedule.after_epoch(main)
        told = "validation {val_loss:.4f}"
        if self._facts.origin is None:  # else there may be no batch left, and no loss
            told = f"loss {{loss.item():.4f}}, {told}"
        main.add(f'print(f"epoch {{epoch}}, step {{step}}: {told}")')
        if self._stops_early:
            main.add("best, waited = (val_loss, 0) if val_loss < best else (best, waited + 1)",
                     f"if waited >= {self._facts.config.early_stopping}:",
                     "    break")  # fmt: skip
