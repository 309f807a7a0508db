"""The same numbers by slow and obvious means, for twins that nobody watches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zoo import Case

Found = dict[tuple[str, str], float]


def first_float(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.dtype.is_floating_point else None
    if isinstance(output, dict):
        output = list(output.values())
    if hasattr(output, "__dataclass_fields__"):
        output = [getattr(output, name) for name in output.__dataclass_fields__]
    if isinstance(output, (tuple, list)):
        return next((t for part in output if (t := first_float(part)) is not None), None)
    return None


def norm(tensor: Tensor) -> float:
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(tensor.detach().to_dense().to(wide)))


class Oracle:
    """Keeps clones of everything during a step and computes from them in float64 afterwards."""

    def __init__(self, case: Case, scale: Callable[[], float] = lambda: 1.0) -> None:
        self.case = case
        self.scale = scale
        self.steps: list[Found] = []
        self._names = dict(case.model.named_modules())
        self._forget()
        for path, module in self._names.items():
            module.register_forward_hook(self._forward(path))
        optimizer = case.optimizers[0]
        optimizer.register_step_pre_hook(lambda *_: self._before())
        optimizer.register_step_post_hook(lambda *_: self._after())

    def run(self, steps: int) -> list[Found]:
        for _ in range(steps):
            self.case.iterate()
        return self.steps

    def _forget(self) -> None:
        self.outputs: dict[str, list[Tensor]] = defaultdict(list)
        self.gradients: dict[str, list[Tensor]] = defaultdict(list)

    def _forward(self, path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = first_float(output)
            if not torch.is_grad_enabled() or not self.case.model.training or tensor is None:
                return
            self.outputs[path].append(tensor.detach().clone().double().flatten())
            if tensor.grad_fn is not None:
                tensor.register_hook(lambda g: self.gradients[path].append(g.detach().clone()))

        return hook

    def _parameters(self) -> dict[str, Tensor]:
        return {
            name.replace("_orig_mod.", ""): p
            for name, p in self.case.model.named_parameters()
            if not p.is_meta
            and (p.dtype.is_floating_point or p.dtype.is_complex)
            and p.dtype.itemsize > 1
        }

    def _before(self) -> None:
        self.before = {name: p.detach().clone() for name, p in self._parameters().items()}
        self.grads = {
            name: p.grad.detach().clone().to_dense()
            for name, p in self._parameters().items()
            if p.grad is not None
        }

    def _after(self) -> None:
        found: Found = {}
        for name, gradient in self.grads.items():
            found["grad_norm", name] = norm(gradient)
            found["grad_max", name] = float(gradient.abs().max()) if gradient.numel() else 0.0
            found["grad_nonfinite", name] = float((~gradient.isfinite()).sum())
            found["grad_norm_clipped", name] = norm(gradient)
        for name, parameter in self._parameters().items():
            found["weight_norm", name] = norm(parameter)
            wide = torch.complex128 if parameter.is_complex() else torch.float64
            change = parameter.detach().to(wide) - self.before[name].to(wide)
            if norm(self.before[name]) > 0:
                found["update_ratio", name] = norm(change) / norm(self.before[name])
        for path, outputs in self.outputs.items():
            values = torch.cat(outputs)
            if not values.numel():
                continue
            found["activation_mean", path] = float(values.mean())
            found["activation_std", path] = float(values.std(correction=0))
            found["activation_zeros", path] = float((values == 0).double().mean())
            found["activation_nonfinite", path] = float((~values.isfinite()).sum())
            if isinstance(self._names[path], nn.Tanh):
                found["activation_saturated", path] = float((values.abs() > 0.97).double().mean())
            if isinstance(self._names[path], nn.Sigmoid):
                outside = (values < 0.015) | (values > 0.985)
                found["activation_saturated", path] = float(outside.double().mean())
        for path, gradients in self.gradients.items():
            if gradients:
                total = sum(norm(g) ** 2 for g in gradients) ** 0.5
                found["output_grad_norm", path] = total / self.scale()
        self.steps.append(found)
        self._forget()
