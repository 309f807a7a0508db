"""The forward side: hooks on modules, their outputs' statistics, and the gradients of outputs."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inspector.capture import modules, native
from inspector.capture.activations import (
    bounds_of,
    main_tensor,
    measure_output,
    tensors_in,
    why_unmeasurable,
)
from inspector.capture.attach import Attachment, ToggledHook
from inspector.capture.clock import DISPATCH_NS
from inspector.capture.discovery import Discovery
from inspector.capture.entries import Entries, Gradients, Rows, TapedEntries
from inspector.capture.histograms import HistogramBatch, HistogramSchedule
from inspector.capture.hooks import (
    ModuleHook,
    NamedInputs,
    OutputGradient,
    on_gradient_of,
    transformed,
)
from inspector.capture.kernel import fits, load
from inspector.capture.measured import ModuleColumns
from inspector.capture.measured_modules import MeasuredModules
from inspector.capture.modules import ModuleRecord
from inspector.capture.reductions import norms, values_of
from inspector.capture.transfer import Scalar
from inspector.capture.uncompiled import never_compiled


class ForwardProbe:
    """Measures outputs of the modules that make them, in training passes only.

    The first full step looks at every module: shapes, call order, and which containers return
    something that no module inside them returned. Afterwards only leaf modules, those
    containers, and modules with parameters of their own keep their hooks, and so do modules that
    were not called yet, such as experts that no sample was sent to.

    Attributes:
        entries: the numbers of each measured call since the last step.
        output_gradients: column and norm of each output gradient since the last step.
        full: whether outputs are measured in this step.
        records: what is known of every module, in registration order.
        remote: an output was not on the CPU.
        blind: why hooks do not see what runs inside; empty where they do.
        heard: a module was called in training. It stays False where a compiled function calls them.
        broken: the probes that have failed and are off.
        histograms: those of the step that runs; None in most steps.
        tape: what the hooks in C write on; None without the extension.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        attachment: Attachment,
        *,
        on_forward: Callable[[], None],
        on_gradient: Callable[[], None],
        on_failure: Callable[[str, Exception], None],
        on_new: Callable[[], None],
        charge: Callable[[int], None],
    ) -> None:
        self.records: list[ModuleRecord] = []
        extension = native.load()
        self.tape: Any = None
        if extension is not None:
            self.tape = extension.Tape(weakref.ref(model), on_forward, on_gradient)
        self.entries = Entries() if extension is None else TapedEntries(self.tape)
        self.output_gradients = Gradients(self.tape)
        self.full = True
        self.remote = False
        self.blind = ""
        self.heard = False
        self.broken: set[str] = set()
        self.histograms: HistogramBatch | None = None
        self._turn: frozenset[int] = frozenset()
        self._model = weakref.ref(model)
        self._on_forward = on_forward
        self._on_gradient = on_gradient
        self._on_failure = on_failure
        self._on_new = on_new
        self._charge = charge
        self._hooks: list[ModuleHook] = []
        self._toggles: list[tuple[ModuleHook, ToggledHook]] = []
        self._named: list[tuple[ModuleHook, ToggledHook]] = []
        self._root: ToggledHook | None = None
        self._measured = MeasuredModules()
        self._discovery = Discovery()
        self._boundary = OutputGradient(self, -1)
        self._discovering = True
        self._evaluating = True
        self._phase = 0
        self._kernel = load()
        self._mark = (0, (0, 0))
        self._attach(model, attachment)
        self._set_tape()

    def _attach(self, model: torch.nn.Module, attachment: Attachment) -> None:
        for module, record in modules.walk(model):
            self.records.append(record)
            if record.badge and module is not model:
                continue
            hook = ModuleHook(self, record, is_root=module is model)
            hook.bounds = bounds_of(module)
            if self.tape is not None:
                extension = native.load()
                hook.use(extension.Site(self.tape, hook.slow, self.on_output_gradient))
            try:
                toggle = attachment.forward_hook(module, hook)
            except RuntimeError:  # a ScriptModule refuses
                record.badge = modules.SCRIPTED
                if module is model:
                    self.blind = modules.SCRIPTED
                continue
            named = attachment.forward_pre_hook(module, NamedInputs(record))
            self._named.append((hook, named))
            self._hooks.append(hook)
            if module is model:
                self._root = toggle
                if module._compiled_call_impl is not None:  # its hooks run inside, where they rest
                    self.blind = modules.COMPILED
            else:
                self._toggles.append((hook, toggle))

    # ------------------------------------------------------------ called by the hooks

    @never_compiled
    def on_forward(self, hook: ModuleHook, args: Any, output: Any) -> None:
        """One call of one module; never raises."""
        if self.broken and "activations" in self.broken:
            if hook.is_root:
                self._watch_boundaries(output)
            return
        started = time.perf_counter_ns()
        try:
            self._observe(hook, args, output)
        except Exception as error:
            self._on_failure("activations", error)
            if hook.is_root:
                self._watch_boundaries(output)
        self._charge(started)

    @never_compiled
    def on_output_gradient(self, column: int, gradient: Tensor) -> None:
        """The gradient of one module's output has arrived; never raises."""
        started = time.perf_counter_ns()
        try:
            if not torch.is_grad_enabled() and not transformed():  # create_graph differentiates
                self._on_gradient()
                if not self.full or column < 0 or "output gradients" in self.broken:
                    pass
                elif self._kernel is not None and fits(gradient):
                    self.output_gradients.append([column, self._kernel.norm(gradient)])
                elif (values := values_of(gradient)) is not None:
                    self.output_gradients.append([float(column), *norms([values])])
        except Exception as error:
            self._on_failure("output gradients", error)
        self._charge(started)

    def _observe(self, hook: ModuleHook, args: Any, output: Any) -> None:
        if transformed():
            hook.record.transformed = True
            return
        if torch._C._current_graph_task_id() != -1:  # recomputed by a checkpoint
            if hook.phase == self._phase or not self.full:
                self._watch_gradient(hook, output)
                return
        elif not self._is_training():
            return
        else:
            hook.phase, self.heard = self._phase, True
            self._on_forward()
        if not self._discovering and self.full and hook.record.call_index < 0:
            self._on_new()
            self._discovering = True
            self._set_tape()
        if self._discovering:
            self._discover(hook, args, output)
        if self.full and hook.column >= 0:
            tensor = main_tensor(output)
            if tensor is not None and tensor.numel() and not why_unmeasurable(tensor):
                self.remote |= not tensor.is_cpu
                if self._kernel is not None and fits(tensor):
                    self.entries.add(self._kernel.output(hook.column, tensor, hook.bounds))
                else:
                    row = measure_output(hook.column, tensor, hook.bounds, hook.careful)
                    self.entries.append(row)
                if self.histograms is not None and hook.column in self._turn:
                    self._turn -= {hook.column}
                    self.histograms.add("activation", hook.record.path, tensor)
        self._watch_gradient(hook, output)

    def _is_training(self) -> bool:
        """In eval mode too, as long as the model is not known to train in the other one."""
        model = self._model()
        if model is None:
            return False
        if model.training:
            self.evaluating = False
        return model.training or self.evaluating

    @property
    def evaluating(self) -> bool:
        """Whether passes in eval mode count."""
        return self._evaluating if self.tape is None else bool(self.tape.evaluating)

    @evaluating.setter
    def evaluating(self, on: bool) -> None:
        self._evaluating = on
        if self.tape is not None:
            self.tape.evaluating = on

    @property
    def deaf(self) -> bool:
        """Whether only a recorded loss tells of backward passes."""
        return bool(self.blind) or not self.heard

    def has_missed(self) -> bool:
        """Whether a full step was trained in eval mode, unseen: from now on such passes count.

        So it is where a script forgets ``train()`` after a validation.
        """
        model = self._model()
        if model is None or model.training or self.evaluating or self.deaf or len(self.entries):
            return False
        self.evaluating = True
        return True

    def _watch_gradient(self, hook: ModuleHook, output: Any) -> None:
        """Tensor hooks on graph-made outputs only: on a leaf they would stay for ever."""
        if hook.is_root:
            self._watch_boundaries(output)
        if self.full and hook.column >= 0:
            main = main_tensor(output)
            if main is not None and main.grad_fn is not None:
                on_gradient_of(main, hook.gradient)

    def _watch_boundaries(self, output: Any) -> None:
        for tensor in tensors_in(output):
            self.watch_boundary(tensor)

    def watch_boundary(self, tensor: Tensor) -> None:
        """Lets a backward pass through this tensor be noticed."""
        if tensor.grad_fn is not None:
            on_gradient_of(tensor, self._boundary)

    def _discover(self, hook: ModuleHook, args: Any, output: Any) -> None:
        record, discovery = hook.record, self._discovery
        tensor = discovery.note(record, args, output)
        if tensor is None:
            return
        inner = record.container and discovery.is_inner(tensor)
        if discovery.first:  # the calls before this one were not listened to
            inner = record.container and not record.own_parameters
        if hook.column < 0 and self.full and not inner:
            if reason := why_unmeasurable(tensor):
                record.badge = record.badge or reason
            else:
                self._measured.add(hook)
        discovery.remember(tensor)

    # ------------------------------------------------------------ called by the observer

    @property
    def columns(self) -> ModuleColumns:
        """The module series so far; the same object until a module joins."""
        return self._measured.columns

    @property
    def types(self) -> tuple[tuple[str, str], ...]:
        """Path and class name by column."""
        return self._measured.types

    def take_histograms(self, batch: HistogramBatch | None, schedule: HistogramSchedule) -> None:
        """Puts histograms of the first call of each module whose turn it is into the batch."""
        self.histograms = batch
        if batch is not None:
            self._turn = frozenset(schedule.pick(len(self._measured)))
        self._set_tape()

    def end_backward(self, *, received: bool, discard: bool) -> None:
        """A backward pass ended. What a pass without parameter gradients left is dropped."""
        if received:
            self._phase += 1
            self._mark = (len(self.entries), self.output_gradients.mark)
        elif discard:
            self.entries.keep_to(self._mark[0])
            self.output_gradients.keep_to(self._mark[1])
        if self.tape is not None:
            self.tape.announced, self.tape.phase = 0, self._phase

    def forget_pass(self) -> None:
        """A backward pass has raised: the next one is announced again."""
        if self.tape is not None:
            self.tape.announced = 0

    def drop_finished_passes(self) -> None:
        """Forgets passes whose gradients were thrown away by ``zero_grad``."""
        self.keep_from(self._mark)

    @property
    def mark(self) -> tuple[int, tuple[int, int]]:
        """Where what belongs to finished passes ends."""
        return self._mark

    def keep_from(self, mark: tuple[int, tuple[int, int]]) -> None:
        """Forgets what came before a mark."""
        self.entries.keep_from(mark[0])
        self.output_gradients.keep_from(mark[1])
        self._mark = (0, (0, 0))

    @property
    def taped(self) -> Any:
        """The tape, if it alone holds the step's numbers, and there are any."""
        tape = self.tape
        alone = tape is not None and not self.entries.listed and not self.output_gradients.pairs
        return tape if alone and tape.count else None

    def resume(self, mark: int, norm_mark: int) -> None:
        """The extension has ended backward passes by itself, the last one at these marks."""
        self._phase = self.tape.phase
        self._mark = (mark, (norm_mark, 0))

    def forget_mark(self) -> None:
        """The tape has been read."""
        self._mark = (0, (0, 0))

    def take(self) -> tuple[Rows | list[list[Scalar]], tuple[Rows, list[list[Scalar]]]]:
        """Hands over the step's entries and output gradients."""
        self._mark = (0, (0, 0))
        return self.entries.take(), self.output_gradients.take()

    def spent(self) -> tuple[int, int]:
        """Nanoseconds in the extension's forward and gradient hooks since the last call."""
        tape = self.tape
        if tape is None:
            return 0, 0
        forward = tape.forward_ns + tape.forward_calls * DISPATCH_NS
        gradient = tape.gradient_ns + tape.gradient_calls * DISPATCH_NS
        tape.forward_ns = tape.gradient_ns = tape.forward_calls = tape.gradient_calls = 0
        return forward, gradient

    def expect(self, waiting: bool) -> None:
        """Whether ``on_forward`` is to be called before the next module is measured."""
        if self.tape is not None:
            self.tape.waiting = waiting

    def _set_tape(self) -> None:
        """Which cases the extension may take by itself."""
        if self.tape is None:
            return
        sound = self.full and not self._discovering and "activations" not in self.broken
        self.tape.open = sound and self.histograms is None and not self.entries.listed
        self.tape.listening = self.full and "output gradients" not in self.broken

    def mark_broken(self, broken: set[str]) -> None:
        """These probes have failed and are off."""
        self.broken = broken
        self._set_tape()

    def be_careful(self, columns: set[int]) -> None:
        """From now on only these modules' variances are computed the slow way."""
        self._measured.be_careful(columns)

    def end_discovery(self) -> bool:
        """After a full step in which modules were called for the first time; True if there are any.

        Mostly it is the first one. A module that the data have not chosen until later joins then.
        """
        if not self._discovering or not self._discovery.calls:
            return False
        self._discovering = False
        self._discovery = Discovery(self._discovery.first + self._discovery.calls)
        for hook, named in self._named:
            named.switch(hook.record.call_index < 0)
        self._named = [(h, named) for h, named in self._named if h.record.call_index < 0]
        for hook in self._hooks:
            if hook.site is not None:
                hook.site.known = hook.column >= 0 or hook.is_root
        kept = [(hook, toggle) for hook, toggle in self._toggles if self._stays(hook)]
        for hook, toggle in self._toggles:
            if not self._stays(hook):
                toggle.switch(False)
        self._toggles = kept
        self._set_tape()
        return True

    def _stays(self, hook: ModuleHook) -> bool:
        return hook.column >= 0 or hook.record.call_index < 0

    def switch(self, *, full: bool, root: bool) -> None:
        """Puts the hooks on for a full step; the root's is also there when asked for."""
        if full != self.full:
            for _, toggle in (*self._toggles, *self._named):
                toggle.switch(full)
        self.full = full
        self._set_tape()
        if self._root is not None:
            self._root.switch(full or root)

    def silence(self) -> None:
        """Hooks that live on in copies or on tensors do nothing from now on."""
        for hook in self._hooks:
            hook.silence()
        self._boundary.probe = None
