"""The training loop of a script, with what was changed by hand at the steps where it was."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from torch import optim

from inspector.commands import Controls
from inspector.exports.script import pieces
from inspector.exports.script.data import Data
from inspector.exports.script.facts import Facts
from inspector.exports.script.optimisation import Scheduling
from inspector.exports.script.text import Imports, Lines, literal, source_of

_VARIABLES = ("zero_grad", "clip", "clip_threshold", "accumulate", "eval_modules")


class Loop:
    """Writes the loop of a run: only what the run made use of is in it."""

    def __init__(self, facts: Facts, data: Data, imports: Imports, definitions: list[str]) -> None:
        self._facts, self._data = facts, data
        self._imports, self._definitions = imports, definitions
        config = facts.config
        self._first = config.controls
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
        self._val = len(facts.task.val_loader) > 0
        self._stops_early = config.early_stopping > 0
        self._own_step = facts.task.kind == "own"

    def write(self, main: Lines) -> None:
        """Adds everything from the first controls to the end of training."""
        self._imports.add("import torch")
        self._schedule.write(self._imports, self._definitions, main)
        if self._fp16:
            main.add(f"scaler = torch.amp.GradScaler({literal(self._device)})")
        self._begin(main)
        main.add("step = begun = 0" if self._fp16 else "step = 0")
        self._train_mode(main)
        config, last = self._facts.config, self._facts.last
        limit = last if last is not None else config.steps
        if limit == 0:
            return
        if self._stops_early:
            main.add('best, waited = float("inf"), 0')
        if limit is None:
            main.open(f"for epoch in range({config.epochs}):")
        else:
            self._imports.add("from itertools import count")
            main.open("for epoch in count():")
        self._epoch(main, limit)
        main.close()

    # ------------------------------------------------------------ before the first step

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
        rates = [float(g["lr"]) for g in self._facts.task.optimizer.param_groups]
        if any(name == "lr" and value is None for _, name, value in self._facts.changes):
            self._definitions += source_of(self._imports, pieces.set_rates)
            main.add(f"first_rates = {rates!r}")
        if self._first.lr is not None:
            self._by_hand(main, "lr", self._first.lr)
        for name in ("momentum", "weight_decay"):
            if getattr(self._first, name) is not None:
                self._by_hand(main, name, getattr(self._first, name))
        if "eval_modules" in self._variables:
            self._definitions += source_of(self._imports, pieces.train_mode)
        for step, name, value in self._facts.changes:
            if step == 0:
                self._by_hand(main, name, value)

    def _train_mode(self, main: Lines) -> None:
        held = "eval_modules" in self._variables
        main.add("train_mode(model, eval_modules)" if held else "model.train()")

    # ------------------------------------------------------------ an epoch

    def _epoch(self, main: Lines, limit: int | None) -> None:
        several = "accumulate" in self._variables
        if several:
            self._imports.add("from itertools import islice")
            main.add("batches = iter(train_loader)")
            main.open("while group := list(islice(batches, accumulate)):")
        else:
            main.open("for batch in train_loader:")
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
        """Adds ``loss_of(batch)``, which training and validation share."""
        main.open("def loss_of(batch: Any) -> torch.Tensor:")
        if self._autocast:
            main.open(
                f"with torch.autocast({literal(self._device)}, dtype=torch.{self._autocast}):"
            )
        self._forward(main)
        main.close(2 if self._autocast else 1)
        main.add("")
        self._imports.add("from typing import Any")

    def _forward(self, main: Lines) -> None:
        if self._own_step:
            main.add("result = training_step(model, batch)",
                     'return result["loss"] if isinstance(result, dict) else result')  # fmt: skip
            return
        moved = self._device != "cpu"
        main.add("inputs, targets = (part.to(device) for part in batch)" if moved
                 else "inputs, targets = batch")  # fmt: skip
        prepared = self._data.prepare
        if self._data.echo:
            if prepared != "inputs":
                main.add(f"inputs = {prepared}")
            main.add("return loss_fn(model(inputs), inputs)")
        else:
            main.add(f"return loss_fn(model({prepared}), targets)")

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
            if step == 0:
                continue
            main.open(f"if step == {step}:")
            for _, name, value in group:
                self._by_hand(main, name, value)
            main.close()

    def _by_hand(self, main: Lines, name: str, value: Any) -> None:
        if name == "lr" and value is None:
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

    def _first_value(self, name: str) -> Any:
        group = self._facts.task.optimizer.param_groups[0]
        return group["betas"][0] if name == "momentum" and "betas" in group else group.get(name)

    # ------------------------------------------------------------ held-out parts

    def _validate(self, main: Lines) -> None:
        if not self._val:
            self._schedule.after_epoch(main)
            return
        self._definitions += source_of(self._imports, pieces.mean_loss)
        main.add("val_loss = mean_loss(model, val_loader, loss_of)")
        self._train_mode(main)
        self._schedule.after_epoch(main)
        told = "loss {loss.item():.4f}, validation {val_loss:.4f}"
        main.add(f'print(f"epoch {{epoch}}, step {{step}}: {told}")')
        if self._stops_early:
            main.add("best, waited = (val_loss, 0) if val_loss < best else (best, waited + 1)",
                     f"if waited >= {self._facts.config.early_stopping}:",
                     "    break")  # fmt: skip
