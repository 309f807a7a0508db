"""What is true of each parameter: who steps it, whether gradients reach it, how it began."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture.examine_changes import Change
from inspector.capture.parameters import plain
from inspector.capture.reductions import local, measurable, norms

_KEPT = 8  # values kept from the beginning, and as many from the end
_SAMPLE = 64  # elements of each parameter whose change is followed
_TIMELINE = 400
_MOST_MEASURED = 400  # of very many parameters, only so many are measured
_ROWS_KEPT = 8  # examined steps over which a unit without gradient counts as dead


@dataclass(slots=True)
class _Parameter:
    name: str
    module: str
    module_type: str
    tensor: weakref.ref[Tensor]
    version: int
    storage: int
    start: dict[str, float]
    measured: bool = True
    group_lr: float | None = None
    ever_required: bool = False
    with_gradient: int = 0
    without_gradient: int = 0
    zero_gradient: int = 0
    foreign_updates: int = 0
    grad_rms: list[float] = field(default_factory=list)
    weight_rms: list[float] = field(default_factory=list)
    update_ratio: list[float] = field(default_factory=list)
    sample: Tensor | None = None
    silent_rows: Tensor | None = None
    rows_seen: int = 0
    silent_share: float | None = None
    rows_equal: bool = False
    change: Change = field(default_factory=Change)


class _Totals:
    """Sums of squares over all parameters, of one step."""

    def __init__(self) -> None:
        self.gradient = self.change = self.size = 0.0

    def add_update(self, change: float, size: float, elements: int) -> None:
        self.change += change * change * elements
        self.size += size * size * elements

    def row(self, follows: bool) -> tuple[float, float | None]:
        """Gradient norm (as the optimizer received it) and update ratio."""
        ratio = math.sqrt(self.change / self.size) if follows and self.size > 0 else None
        return math.sqrt(self.gradient), ratio


class ParameterFacts:
    """Membership, gradients, initial values and forgotten ``zero_grad``.

    Attributes:
        owners: id of each parameter → (module path, parameter name).
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self.owners: dict[int, tuple[str, str]] = {}
        self._parameters: list[_Parameter] = []
        modules = {plain(path): module for path, module in model.named_modules()}
        for name, tensor in model.named_parameters():
            if torch.nn.parameter.is_lazy(tensor):
                continue
            path = plain(name).rpartition(".")[0]
            self.owners[id(tensor)] = (path, plain(name))
            owner = modules.get(path)
            self._parameters.append(
                _Parameter(
                    plain(name),
                    path,
                    type(owner).__name__ if owner is not None else "",
                    weakref.ref(tensor),
                    tensor._version,
                    tensor.data_ptr(),
                    _start(tensor, type(owner).__name__),
                )
            )
        spacing = -(-len(self._parameters) // _MOST_MEASURED)
        for position, parameter in enumerate(self._parameters):
            last = len(self._parameters) - 1
            parameter.measured = position % max(spacing, 1) == 0 or position >= last - 1
        self._steps = 0
        self._examined: list[int] = []
        self._used: list[tuple[weakref.ref[Tensor], Tensor]] = []
        self._timeline: list[tuple[int, float, float | None]] = []
        self._unzeroed_passes: list[bool] = []
        self._kept_steps: list[int] = []
        self._checked_steps = 0
        self._groups()

    def rates(self) -> dict[int, float]:
        """Learning rate of each parameter that an optimizer holds, by its id."""
        return {
            id(tensor): float(group.get("lr", math.nan))
            for reference in self._optimizers
            if (optimizer := reference()) is not None
            for group in optimizer.param_groups
            for tensor in group["params"]
        }

    def _groups(self) -> None:
        rates = self.rates()
        for parameter in self._parameters:
            tensor = parameter.tensor()
            parameter.group_lr = None if tensor is None else rates.get(id(tensor))
            parameter.ever_required |= tensor is not None and tensor.requires_grad

    # ------------------------------------------------------------------ zero_grad

    def watch_backward(self, output: Tensor) -> None:
        """At the start of this pass's backward, looks whether old gradients are still there."""
        if self._steps == 0:
            return
        facts = weakref.ref(self)

        def begin(_gradient: Tensor) -> None:
            owner = facts()
            if owner is not None:
                owner._backward_begins()

        output.register_hook(begin)  # type: ignore[no-untyped-call]

    def _backward_begins(self) -> None:
        if len(self._unzeroed_passes) < 16 and not (
            self._unzeroed_passes and not self._unzeroed_passes[-1]
        ):
            self._unzeroed_passes.append(self._gradients_remain())

    def _gradients_remain(self) -> bool:
        """Whether gradients are still exactly those that the last step used."""
        return any(
            (tensor := reference()) is not None
            and tensor.grad is not None
            and torch.equal(_sample(tensor.grad), sample)
            for reference, sample in self._used
        )

    def _keep_used(self) -> None:
        """Remembers a few values of some gradients that the step has just used."""
        self._used = []
        for parameter in reversed(self._parameters):
            tensor = parameter.tensor()
            if tensor is None or parameter.group_lr is None or tensor.grad is None:
                continue
            if not tensor.grad.is_sparse and measurable(tensor.grad):
                sample = _sample(tensor.grad)
                if bool((sample != 0).any()) and bool(torch.isfinite(sample).all()):
                    self._used.append((parameter.tensor, sample))
            if len(self._used) == 4:
                return

    # ------------------------------------------------------------------ steps

    def stepped(self, step: int, examine: bool) -> None:
        """The optimizer has just stepped; gradients are still there."""
        follows = bool(self._examined) and self._examined[-1] == step - 1
        if follows and self._unzeroed_passes:
            self._checked_steps += 1
            if all(self._unzeroed_passes) and len(self._kept_steps) < 200:
                self._kept_steps.append(step)
        self._unzeroed_passes = []
        self._steps += 1
        if not examine:
            return
        self._groups()
        totals = _Totals()
        living = [(one, tensor) for one in self._parameters if (tensor := one.tensor()) is not None]
        measured = [(one, tensor) for one, tensor in living if _is_measured(one, tensor)]
        gradients = _rms_of_all([tensor.grad for _, tensor in measured if tensor.grad is not None])
        sizes = _rms_of_all([tensor for _, tensor in measured])
        found = {
            id(one): pair
            for (one, _), pair in zip(measured, zip(gradients, sizes, strict=True), strict=True)
        }
        for parameter, tensor in living:
            size = self._look(parameter, tensor, found.get(id(parameter)), totals)
            parameter.change.look(tensor, step, size if tensor.dim() >= 2 else None)
        self._follow(living, totals, follows)
        self._keep_used()
        self._examined.append(step)
        if all(parameter.measured for parameter in self._parameters):
            self._timeline.append((step, *totals.row(follows)))
        del self._timeline[_TIMELINE // 2 : -_TIMELINE // 2], self._examined[:-1]

    def _follow(
        self, living: list[tuple[_Parameter, Tensor]], totals: _Totals, follows: bool
    ) -> None:
        """How far a sample of each parameter's elements moved since the step before."""
        moved: list[tuple[_Parameter, Tensor, Tensor, Tensor]] = []
        for parameter, tensor in living:
            optimized = parameter.measured and parameter.group_lr is not None
            if not optimized or not measurable(tensor) or tensor.numel() == 0:
                continue
            flat = local(tensor).detach().reshape(-1)
            before = parameter.sample
            sample = _wide(flat[:: max(flat.numel() // _SAMPLE, 1)][:_SAMPLE]).clone()
            parameter.sample = sample
            if follows and before is not None and len(before) == len(sample):
                moved.append((parameter, tensor, before, sample))
        changes = _rms_of_all([sample - before for _, _, before, sample in moved])
        sizes = _rms_of_all([before for _, _, before, _ in moved])
        for (parameter, tensor, _, _), change, size in zip(moved, changes, sizes, strict=True):
            if tensor.dim() >= 2:
                parameter.update_ratio.append(change / size if size > 0 else math.inf)
                del parameter.update_ratio[_KEPT:-_KEPT]
            totals.add_update(change, size, tensor.numel())

    def _look(
        self,
        parameter: _Parameter,
        tensor: Tensor,
        found: tuple[float, float] | None,
        totals: _Totals,
    ) -> float | None:
        """The size of its values, where it has a gradient and is measured.

        Args:
            found: root mean square of gradient and values.
        """
        changed = (tensor._version, tensor.data_ptr()) != (parameter.version, parameter.storage)
        parameter.version, parameter.storage = tensor._version, tensor.data_ptr()
        parameter.foreign_updates += changed and parameter.group_lr is None
        gradient = tensor.grad
        if gradient is None:
            parameter.without_gradient += 1
            return None
        parameter.with_gradient += 1
        if found is None:
            return None
        rms, size = found
        parameter.zero_gradient += rms == 0
        parameter.grad_rms.append(rms)
        parameter.weight_rms.append(size)
        del parameter.grad_rms[_KEPT:-_KEPT], parameter.weight_rms[_KEPT:-_KEPT]
        totals.gradient += rms * rms * tensor.numel()
        if tensor.dim() >= 2 and parameter.module_type != "Embedding":
            silent = _zero_rows(gradient.flatten(1))
            rows = parameter.silent_rows
            parameter.silent_rows = silent if rows is None else rows & silent
            parameter.rows_seen += 1
            if parameter.rows_seen >= _ROWS_KEPT:
                self._close_rows(parameter)
            if tensor.shape[0] > 1 and parameter.with_gradient > 1:
                flat = tensor.detach().flatten(1)
                parameter.rows_equal = _rows_equal(flat) and bool((flat != 0).any())
        return size

    def _close_rows(self, parameter: _Parameter) -> None:
        if parameter.silent_rows is not None and parameter.rows_seen >= 4:
            parameter.silent_share = float(parameter.silent_rows.float().mean())
        parameter.silent_rows, parameter.rows_seen = None, 0

    def end_burst(self) -> None:
        for parameter in self._parameters:
            self._close_rows(parameter)

    def compare_from_here(self) -> None:
        """What comes now is compared with what came before."""
        for parameter in self._parameters:
            parameter.change.end_burst()

    def document(self) -> dict[str, Any]:
        self._groups()
        return {
            "parameters": [_row(parameter) for parameter in self._parameters],
            "timeline": {
                "steps": [step for step, _, _ in self._timeline],
                "grad_norm": [norm for _, norm, _ in self._timeline],
                "update_ratio": [ratio for _, _, ratio in self._timeline],
            },
            "zero_grad": {"checked_steps": self._checked_steps, "kept_steps": self._kept_steps},
        }


def _row(parameter: _Parameter) -> dict[str, Any]:
    tensor = parameter.tensor()
    return {
        "name": parameter.name,
        "module": parameter.module,
        "module_type": parameter.module_type,
        "shape": [] if tensor is None else list(tensor.shape),
        "requires_grad": tensor is not None and tensor.requires_grad,
        "ever_required_grad": parameter.ever_required,
        "in_optimizer": parameter.group_lr is not None,
        "lr": parameter.group_lr,
        "steps_with_gradient": parameter.with_gradient,
        "steps_without_gradient": parameter.without_gradient,
        "steps_with_zero_gradient": parameter.zero_gradient,
        "foreign_updates": parameter.foreign_updates,
        "start": parameter.start,
        "grad_rms": parameter.grad_rms,
        "weight_rms": parameter.weight_rms,
        "update_ratio": parameter.update_ratio,
        "silent_rows": parameter.silent_share,
        "rows_equal": parameter.rows_equal,
        **parameter.change.row(),
    }


def _sample(gradient: Tensor) -> Tensor:
    flat = gradient.detach().reshape(-1)
    return flat[:: max(flat.numel() // 16, 1)][:16].clone()


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_complex() else tensor.float()


def _is_measured(parameter: _Parameter, tensor: Tensor) -> bool:
    gradient = tensor.grad
    return (
        parameter.measured
        and gradient is not None
        and not gradient.is_sparse
        and measurable(gradient)
        and measurable(tensor)
    )


def _rms_of_all(tensors: list[Tensor]) -> list[float]:
    """The root mean square of each; a device is waited for once."""
    here = [local(tensor).detach() for tensor in tensors]
    found = norms(here)
    late = [norm for norm in found if isinstance(norm, Tensor)]
    known = iter(torch.stack([norm.to(late[0]) for norm in late]).tolist() if late else ())
    values = [next(known) if isinstance(norm, Tensor) else norm for norm in found]
    return [
        value / math.sqrt(max(tensor.numel(), 1))
        for value, tensor in zip(values, here, strict=True)
    ]


def _zero_rows(matrix: Tensor) -> Tensor:
    """Which rows are wholly zero; those are read wholly of which a few numbers are.

    They lie an odd number apart: kernels of convolutions may have no gradient at their rim.
    """
    zero = (matrix[:, :: matrix.shape[1] // 16 | 1] == 0).all(1)
    if bool(zero.any()):
        zero[zero.clone()] = (matrix[zero] == 0).all(1)
    return zero


def _rows_equal(matrix: Tensor) -> bool:
    """Whether all rows are alike; most are told apart by the first two."""
    return bool((matrix[1:2] == matrix[:1]).all()) and bool((matrix == matrix[:1]).all())


def _start(tensor: Tensor, module_type: str) -> dict[str, float]:
    """Size of the initial values; ``gain`` is std·√fan_in, 0.58 for PyTorch's own default."""
    if tensor.numel() < 2 or not measurable(tensor) or tensor.is_sparse or tensor.is_complex():
        return {}
    values = tensor.detach().float()
    std, mean = torch.std_mean(values)
    facts = {"std": float(std), "mean": float(mean), "max": float(values.abs().max())}
    if tensor.dim() >= 2 and module_type != "Embedding":
        fan_in = tensor[0].numel()
        if module_type.startswith("ConvTranspose"):
            fan_in = tensor.numel() // tensor.shape[1]
        flat = values.flatten(1)
        facts["fan_in"] = fan_in
        facts["gain"] = float(std) * math.sqrt(fan_in)
        facts["rows_equal"] = float(len(flat) > 1 and _rows_equal(flat))
    return facts
