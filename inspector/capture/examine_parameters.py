"""What is true of each parameter: who steps it, whether gradients reach it, how it began."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inspector.capture.answers import Answers
from inspector.capture.examine_changes import Change
from inspector.capture.examine_zero_grad import ZeroGradFacts
from inspector.capture.parameters import plain
from inspector.capture.reductions import local, measurable, norms
from inspector.capture.transfer import Scalar

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
    change: Change
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


class _Seen(NamedTuple):
    """A parameter in one step, and what is to be told the size of its values."""

    parameter: _Parameter
    tensor: Tensor
    gradient: Tensor
    sized: Callable[[float], None] | None


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
    """Membership, gradients and initial values.

    Attributes:
        owners: id of each parameter → (module path, parameter name).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        answers: Answers,
        zero_grad: ZeroGradFacts,
    ) -> None:
        self._answers = answers
        self._zero_grad = zero_grad
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
                    Change(answers),
                )
            )
        spacing = -(-len(self._parameters) // _MOST_MEASURED)
        for position, parameter in enumerate(self._parameters):
            last = len(self._parameters) - 1
            parameter.measured = position % max(spacing, 1) == 0 or position >= last - 1
        self._examined = -1  # the last step that was
        self._timeline: list[tuple[int, float, float | None]] = []
        self._groups()

    def rates(self) -> dict[int, float]:
        """Learning rate of each parameter that an optimizer holds, by its id."""
        return {
            id(tensor): _rate(group)
            for reference in self._optimizers
            if (optimizer := reference()) is not None
            for group in optimizer.param_groups
            for tensor in group["params"]
        }

    def follow_optimizer(self, position: int, optimizer: torch.optim.Optimizer) -> None:
        """Another optimizer steps from now on in the place of one."""
        self._optimizers[position] = weakref.ref(optimizer)
        self._groups()

    def _groups(self) -> None:
        rates = self.rates()
        for parameter in self._parameters:
            tensor = parameter.tensor()
            parameter.group_lr = None if tensor is None else rates.get(id(tensor))
            parameter.ever_required |= tensor is not None and tensor.requires_grad

    # ------------------------------------------------------------------ steps

    def stepped(self, step: int, examine: bool) -> None:
        """The optimizer has just stepped; gradients are still there."""
        follows = 0 <= self._examined == step - 1
        self._zero_grad.stepped(step, follows=follows)
        if not examine:
            return
        self._groups()
        living = [(one, tensor) for one in self._parameters if (tensor := one.tensor()) is not None]
        seen: list[_Seen] = []
        for parameter, tensor in living:
            self._count(parameter, tensor)
            sized = parameter.change.look(tensor, step)
            gradient = _measured_gradient(parameter, tensor)
            if gradient is not None:
                size_told = sized if tensor.dim() >= 2 else None
                seen.append(_Seen(parameter, tensor, gradient, size_told))
                self._look_at_rows(parameter, tensor, gradient)
        sizes = _rms_of_all([one.gradient for one in seen])
        sizes += _rms_of_all([one.tensor for one in seen])
        moved = self._follow(living, follows)
        sizes += _rms_of_all([after - before for _, _, before, after in moved])
        sizes += _rms_of_all([before for _, _, before, _ in moved])
        whole = all(parameter.measured for parameter in self._parameters)
        then = partial(
            self._note_step,
            step if whole else None,
            follows,
            [(one.parameter, one.tensor.numel(), one.sized) for one in seen],
            [(parameter, tensor.dim(), tensor.numel()) for parameter, tensor, _, _ in moved],
        )
        self._answers.ask(then, *sizes)
        held = (tensor for one, tensor in reversed(living) if one.group_lr is not None)
        self._zero_grad.keep(held)
        self._examined = step

    def _follow(
        self, living: list[tuple[_Parameter, Tensor]], follows: bool
    ) -> list[tuple[_Parameter, Tensor, Tensor, Tensor]]:
        """A sample of each parameter's elements, beside that of the step before."""
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
        return moved

    def _note_step(
        self,
        step: int | None,
        follows: bool,
        seen: list[tuple[_Parameter, int, Callable[[float], None] | None]],
        moved: list[tuple[_Parameter, int, int]],
        *numbers: Any,
    ) -> None:
        """Sizes of gradients and values of what was ``seen``, of changes and values of ``moved``.

        ``step`` is None where not all parameters are measured.
        """
        found = iter(map(float, numbers))
        gradients, values = ([next(found) for _ in seen] for _ in range(2))
        changes, befores = ([next(found) for _ in moved] for _ in range(2))
        totals = _Totals()
        for (parameter, elements, sized), rms, size in zip(seen, gradients, values, strict=True):
            parameter.zero_gradient += rms == 0
            parameter.grad_rms.append(rms)
            parameter.weight_rms.append(size)
            del parameter.grad_rms[_KEPT:-_KEPT], parameter.weight_rms[_KEPT:-_KEPT]
            totals.gradient += rms * rms * elements
            if sized is not None:
                sized(size)
        for (parameter, dims, elements), change, size in zip(moved, changes, befores, strict=True):
            if dims >= 2:
                parameter.update_ratio.append(change / size if size > 0 else math.inf)
                del parameter.update_ratio[_KEPT:-_KEPT]
            totals.add_update(change, size, elements)
        if step is not None:
            self._timeline.append((step, *totals.row(follows)))
            del self._timeline[_TIMELINE // 2 : -_TIMELINE // 2]

    @staticmethod
    def _count(parameter: _Parameter, tensor: Tensor) -> None:
        """Whether somebody else wrote to it, and whether a gradient has come."""
        changed = (tensor._version, tensor.data_ptr()) != (parameter.version, parameter.storage)
        parameter.version, parameter.storage = tensor._version, tensor.data_ptr()
        parameter.foreign_updates += changed and parameter.group_lr is None
        if tensor.grad is None:
            parameter.without_gradient += 1
        else:
            parameter.with_gradient += 1

    def _look_at_rows(self, parameter: _Parameter, tensor: Tensor, gradient: Tensor) -> None:
        """Which rows have no gradient, and whether all rows are alike."""
        if tensor.dim() < 2 or parameter.module_type == "Embedding":
            return
        silent = _zero_rows(gradient.flatten(1))
        rows = parameter.silent_rows
        parameter.silent_rows = silent if rows is None else rows & silent
        parameter.rows_seen += 1
        if parameter.rows_seen >= _ROWS_KEPT:
            self._close_rows(parameter)
        if tensor.shape[0] > 1 and parameter.with_gradient > 1:
            alike = _rows_alike(tensor.detach().flatten(1))
            self._answers.ask(lambda alike: setattr(parameter, "rows_equal", bool(alike)), alike)

    def _close_rows(self, parameter: _Parameter) -> None:
        if parameter.silent_rows is not None and parameter.rows_seen >= 4:
            share = parameter.silent_rows.float().mean()
            self._answers.ask(lambda share: setattr(parameter, "silent_share", float(share)), share)
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
            "zero_grad": self._zero_grad.document(),
        }


def _rate(group: dict[str, Any]) -> float:
    """A group's learning rate; NaN for one on a device, which is not waited for."""
    rate = group.get("lr", math.nan)
    return math.nan if isinstance(rate, Tensor) and not rate.is_cpu else float(rate)


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


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_complex() else tensor.float()


def _measured_gradient(parameter: _Parameter, tensor: Tensor) -> Tensor | None:
    """The parameter's gradient, where both are measured."""
    gradient = tensor.grad
    if gradient is None or not parameter.measured or gradient.is_sparse:
        return None
    return gradient if measurable(gradient) and measurable(tensor) else None


def _rms_of_all(tensors: list[Tensor]) -> list[Scalar]:
    """The root mean square of each."""
    here = [local(tensor).detach() for tensor in tensors]
    return [
        value / math.sqrt(max(tensor.numel(), 1))
        for value, tensor in zip(norms(here), here, strict=True)
    ]


def _zero_rows(matrix: Tensor) -> Tensor:
    """Which rows are wholly zero; on the CPU those are read wholly of which a few numbers are.

    They lie an odd number apart: kernels of convolutions may have no gradient at their rim.
    """
    if not matrix.is_cpu:
        return (matrix == 0).all(1)
    zero = (matrix[:, :: matrix.shape[1] // 16 | 1] == 0).all(1)
    if bool(zero.any()):
        zero[zero.clone()] = (matrix[zero] == 0).all(1)
    return zero


def _rows_equal(matrix: Tensor) -> bool:
    """Whether all rows are alike; most are told apart by the first two."""
    return bool((matrix[1:2] == matrix[:1]).all()) and bool((matrix == matrix[:1]).all())


def _rows_alike(matrix: Tensor) -> Tensor | bool:
    """Whether all rows are alike, and not zero."""
    if matrix.is_cpu:
        return _rows_equal(matrix) and bool((matrix != 0).any())
    return (matrix == matrix[:1]).all() & (matrix != 0).any()


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
