"""Exact facts about a training program, collected in its first steps and in short bursts later.

The recorder needs four lines::

    probe = StructureProbe(model, optimizers, loss_fn=loss_fn, loader=loader)   # in watch()
    probe.on_loss(loss)                       # in record(loss=…), before or after backward
    if probe.on_step(step):                   # after each optimizer step
        writer.document("structure", step, probe.document())
    writer.document("structure", step, probe.document()); probe.close()         # at the end

``step`` is the number of the step that has just been completed, 0-based. The document should
also be written when the run fails. The probe draws no random numbers, changes nothing and keeps
no tensor of the training alive; after :meth:`StructureProbe.close` its hooks are gone. An error
of its own switches it off and is found in :attr:`StructureProbe.failed`.
"""

from __future__ import annotations

import contextlib
import math
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture import modules as module_records
from inspector.capture.activations import main_tensor
from inspector.capture.answers import Answers
from inspector.capture.attach import Attachment, Inert, ToggledHook
from inspector.capture.examine_calls import Calls, batch_of
from inspector.capture.examine_data import DataFacts
from inspector.capture.examine_graph import GraphFacts
from inspector.capture.examine_loss import LossFacts
from inspector.capture.examine_modes import ModeFacts
from inspector.capture.examine_parameters import ParameterFacts
from inspector.capture.examine_zero_grad import ZeroGradFacts
from inspector.capture.parameters import plain
from inspector.capture.reductions import is_sharded
from inspector.capture.uncompiled import never_compiled

VERSION = 1
FIRST_STEPS = 16
BURST = 8
_OWNER_STEPS = 3  # during which it is noted which modules run at all, with gradients or without
LAST_STEP_OF_ORDER = 1000
_AT_ANY_COST = 400  # steps, after which a burst waits until the budget allows it
_BUDGET = 0.004  # of the training time


def is_examined(step: int) -> bool:
    """The first 16 steps, then bursts of 8 that lie further and further apart.

    They end at 50, 100, 150, 200, 300, 400, 600, 800, …: two between doublings. After 400 steps
    some are left out, to keep the cost within 0.4 % of the time.
    """
    if step < FIRST_STEPS:
        return True
    period = _period(step)
    return step % period >= period - BURST


def next_examined(step: int) -> int:
    """A step from this one on before which none is examined; itself mostly is."""
    period = _period(step)
    return step if is_examined(step) else step - step % period + period - BURST


def _period(step: int) -> int:
    period = 50
    while period * 4 <= step:
        period *= 2
    return period


class StructureProbe:
    """Collects the ``structure`` document of a run; of sharded models (FSDP) there is none.

    Attributes:
        charge: is told the nanoseconds that the probe has taken.
        failed: what went wrong in the probe itself, or None; it is off from then on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        loss_fn: Any = None,
        loader: Any = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        self.failed: Exception | None = None
        self.charge: Callable[[int], None] = lambda _ns: None
        self._answers = Answers()
        self._model = weakref.ref(model)
        self._attachment = Attachment()
        self._now: Callable[[], int] | None = now
        self._ended = self._late_cost = self._since = self._idle_until = self._asked_until = 0
        self._switched: tuple[bool, ...] = ()
        self._examining = True
        self._called = False
        # Each look at a sharded parameter would be a collective operation.
        self._closed = any(is_sharded(parameter) for parameter in model.parameters())
        self._entries: list[ToggledHook] = []
        self._criterion: list[ToggledHook] = []
        self._owners: list[ToggledHook] = []
        self._guard(self._begin, model, list(optimizers), loss_fn, loader)

    def _begin(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        loss_fn: Any,
        loader: Any,
    ) -> None:
        answers = self._answers
        self._zero_grad = ZeroGradFacts(answers)
        self._parameters = ParameterFacts(model, optimizers, answers, self._zero_grad)
        parameters = self._parameters
        held = self._model
        self._graph = GraphFacts(
            parameters.owners,
            lambda: {
                *parameters.rates(),
                *(id(p) for m in [held()] if m is not None for p in m.parameters()),
            },
            answers,
        )
        self._loss = LossFacts(loss_fn, self._parameters.owners, answers)
        self._modes = ModeFacts(model)
        self._data = DataFacts(loader, answers)
        self._calls = Calls()
        self._paths = {id(module): plain(path) for path, module in model.named_modules()}
        # A hook inside a compiled module would be traced, or refused.
        self._visible = {id(m) for m, record in module_records.walk(model) if not record.badge}
        self._enter(model)
        self._ran: set[str] = set()
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                self._listen(module, "_on_owner", self._owners)
        if isinstance(loss_fn, nn.Module):
            self._visible.add(id(loss_fn))
            self._listen(loss_fn, "_on_criterion", self._criterion)

    def _listen(self, module: nn.Module, method: str, hooks: list[ToggledHook]) -> None:
        if id(module) not in self._visible:
            return
        # ScriptModules refuse hooks.
        with contextlib.suppress(RuntimeError):
            hook = _Hook(self, method)
            hooks.append(self._attachment.forward_hook(module, hook, with_kwargs=True))

    def _enter(self, *modules: nn.Module) -> None:
        """Listens to modules that the script calls: the root, or what a container holds."""
        for module in modules:
            if type(module) in (nn.ModuleDict, nn.ModuleList):
                self._enter(*module.children())
                continue
            self._listen(module, "_on_forward", self._entries)

    def _affordable(self) -> bool:
        """Whether one more burst keeps to the budget, which counts after the first bursts."""
        if self._ended < _AT_ANY_COST or not self._since:
            self._since = time.perf_counter_ns()
            return True
        return self._late_cost <= _BUDGET * (time.perf_counter_ns() - self._since)

    def _switch(self) -> None:
        """Hooks that have nothing to learn in the coming step leave their module."""
        following = self._modes.sensitive or self._orders_wanted()
        wanted = (
            self._examining,
            following,
            self._step < _OWNER_STEPS,
            self._data.wants_targets,
        )
        if wanted == self._switched:
            return
        self._switched = wanted
        for hook in self._entries:
            hook.switch(self._examining or following)
        for hook in self._owners:
            hook.switch(self._step < _OWNER_STEPS)
        for hook in self._criterion:
            hook.switch(self._examining or self._data.wants_targets)

    def _orders_wanted(self) -> bool:
        return self._step < LAST_STEP_OF_ORDER and self._data.wants_order

    # ------------------------------------------------------------------ called by hooks

    def _on_owner(self, module: nn.Module, _args: Any, _kwargs: Any, _output: Any) -> None:
        self._ran.add(self._paths.get(id(module), ""))

    def _on_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._called = True
        result = main_tensor(output)
        if not torch.is_grad_enabled() or result is None or not result.requires_grad:
            if result is not None:
                self._calls.leave(result)
            self._modes.forward(module, self._step, None)
            return
        self._modes.forward(module, self._step, result)
        path = self._paths.get(id(module), "")
        inputs = batch_of(args, kwargs)
        call = None if inputs is None else self._calls.enter(path, inputs, self._step)
        self._calls.leave(result)
        if inputs is not None and call is not None and self._orders_wanted():
            self._data.batch(inputs, self._step)
        if not self._examining:
            return
        self._zero_grad.watch_backward(result)
        self._loss.outputs(result)
        self._graph.examine(result, self._step, path, judges=path in self._calls.fed)
        if inputs is not None:
            self._data.inputs(inputs, self._graph.entry_input(result), self._step, call)

    def _on_criterion(self, _module: nn.Module, args: Any, kwargs: Any, _output: Any) -> None:
        given = (*args, *(kwargs[name] for name in ("input", "target") if name in kwargs))
        if not torch.is_grad_enabled() or len(given) < 2:
            return
        outputs, targets = given[:2]
        if isinstance(outputs, Tensor) and isinstance(targets, Tensor):
            if self._examining:
                self._loss.outputs(outputs, exact=True)
            self._data.targets(targets, outputs, self._step)

    # ------------------------------------------------------------------ called by the recorder

    def on_loss(self, loss: Any) -> None:
        """A recorded loss; only tensors that are part of a graph tell anything."""
        if self._examining and isinstance(loss, Tensor):
            self._guard(self._examine_loss, loss)

    def _examine_loss(self, loss: Tensor) -> None:
        pair = self._loss.examine(loss, self._step)
        if pair is not None:
            self._data.targets(pair[1], pair[0], self._step)

    @property
    def _step(self) -> int:
        return self._ended if self._now is None else self._now()

    def quiet_until(self, step: int) -> int:
        """The first step from this one on whose beginning must be told by :meth:`on_step`."""
        if self._closed:
            return step + 1000
        if self._examining or step <= FIRST_STEPS:
            return step
        following = self._data.wants_order and step < LAST_STEP_OF_ORDER
        until = next_examined(step)
        return min(until, LAST_STEP_OF_ORDER) if following else until

    def on_step(self, step: int) -> bool:
        """Ends a step; True when :meth:`document` has news worth storing."""
        if self._closed:
            return False
        if step < self._idle_until:
            self._ended = step + 1
            return False
        return bool(self._guard(self._end_step, step))

    def _end_step(self, step: int) -> bool:
        examined = self._examining
        self._answers.arrive()
        self._parameters.stepped(step, examined)
        if not self._called and step == 0 and (model := self._model()) is not None:
            self._enter(*model.children())
        self._ended = step + 1
        due = is_examined(step + 1)
        asked = step + 1 < self._asked_until
        self._examining = asked or (due and (examined or self._affordable()))
        self._switch()
        if not examined and not self._examining and self._step > FIRST_STEPS:
            self._idle_until = self.quiet_until(step + 2) - 1
        if examined and not self._examining and step >= FIRST_STEPS:
            self._end_burst()
            return True
        if step == FIRST_STEPS - 1:
            self._compare_from_here()
        return step in (0, 4, FIRST_STEPS - 1)

    def follow_optimizer(self, position: int, optimizer: torch.optim.Optimizer) -> None:
        """Another optimizer is watched in the place of one."""
        self._guard(self._parameters.follow_optimizer, position, optimizer)
        self.look_again()

    def look_again(self) -> None:
        """Between two steps: something was changed from outside, so the coming eight are examined.

        A person who changes something by hand is found out by the next burst.
        """
        self._guard(self._look_again)

    def _look_again(self) -> None:
        if self._examining and self._ended > FIRST_STEPS:
            self._end_burst()
        self._asked_until = self._ended + BURST
        self._examining, self._idle_until = True, 0
        self._switch()

    def _end_burst(self) -> None:
        self._graph.end_burst()
        self._parameters.end_burst()
        self._compare_from_here()

    def _compare_from_here(self) -> None:
        self._graph.forms.end_burst()
        self._parameters.compare_from_here()
        self._data.end_burst()

    def settle(self) -> None:
        """After the last step: waits for what a device has been asked and has not answered yet."""
        self._guard(partial(self._answers.arrive, wait=True))

    def document(self) -> dict[str, Any]:
        """Everything known so far, as JSON; ``{"failed": …}`` when the probe broke."""
        content = None if self.failed else self._guard(self._document)
        if content is None:
            return {"version": VERSION, "failed": repr(self.failed)}
        return dict(content)

    def _document(self) -> dict[str, Any]:
        content = {
            "version": VERSION,
            "step": self._ended - 1,
            **self._parameters.document(),
            **self._graph.document(),
            "loss": self._loss.document(),
            **self._data.document(),
            "ran": sorted(self._ran),
            "modes": self._modes.document(),
        }
        return dict(_finite(content))

    def close(self) -> None:
        """Removes the hooks; twice is fine."""
        self._closed = True
        self._attachment.remove()

    @never_compiled
    def _guard(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a part of the probe; its error ends the probe, never the training."""
        if self._closed and function != self._document:
            return None
        started = time.perf_counter_ns()
        try:
            return function(*args)
        except Exception as error:  # an observer must not stop what it observes
            self.failed = error
            self.close()
            return None
        finally:
            taken = time.perf_counter_ns() - started
            if self._examining and self._ended > _AT_ANY_COST:
                self._late_cost += taken
            self.charge(taken)


def _finite(value: Any) -> Any:
    """The document in six digits, with None in place of NaN and infinity, which JSON lacks."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


class _Hook(Inert):
    """A forward hook that calls a method of the probe."""

    __slots__ = ("method", "probe")

    def __init__(self, probe: StructureProbe, method: str) -> None:
        self.probe = weakref.ref(probe)
        self.method = method

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        probe = self.probe()
        if probe is None or torch.compiler.is_dynamo_compiling():
            return
        if torch._C._functorch.peek_interpreter_stack() is None:  # under vmap there are no values
            probe._guard(getattr(probe, self.method), module, args, kwargs, output)
