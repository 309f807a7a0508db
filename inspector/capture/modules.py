"""What is known of each module: path, shapes, call order, and why it cannot be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from inspector.capture.activations import tensors_in
from inspector.capture.parameters import plain

NEVER_RAN = "never called"
COMPILED = "inside torch.compile: not visible; train it uncompiled to see inside"
SCRIPTED = "compiled by torch.jit: its inside is not visible"
TRANSFORMED = "called inside torch.func transforms only: there are no values to measure"
NOT_CALLED = "its parameters are used, but it is not called as a module"

Shapes = list[list[int | str]]


@dataclass(slots=True)
class ModuleRecord:
    """One module of the watched model, filled in by its first training call.

    Attributes:
        call_index: position in call order, or -1 before the first call.
        named_inputs: shapes of what the call that runs was given by keyword.
        batch_first: the module's own setting; None where it has none.
        transformed: it was called while a function transform (vmap, grad) ran.
        badge: why numbers are missing; empty when all is well.
    """

    path: str
    type: str
    parameters: int
    trainable: int
    bytes: int
    own_parameters: tuple[str, ...]
    container: bool
    batch_first: bool | None = None
    call_index: int = -1
    inputs: Shapes = field(default_factory=list)
    outputs: Shapes = field(default_factory=list)
    named_inputs: Shapes = field(default_factory=list)
    dtype: str = ""
    output_bytes: int = 0
    transformed: bool = False
    badge: str = ""

    def fill(self, call_index: int, args: Any, output: Any) -> None:
        """Notes shapes and order of a call: of keyword arguments where there are no others."""
        self.call_index = call_index
        self.inputs = shapes(args) or self.named_inputs
        outputs = list(tensors_in(output))
        self.outputs = shapes(output)
        if outputs:
            self.dtype = str(outputs[0].dtype).removeprefix("torch.")
        self.output_bytes = sum(t.numel() * t.element_size() for t in outputs if not t.is_sparse)

    def row(self, gradients: frozenset[str]) -> dict[str, Any]:
        """The module's row in the ``modules`` document."""
        badge = self.badge
        if not badge and self.call_index < 0 and self.transformed:
            badge = TRANSFORMED
        elif not badge and self.call_index < 0:
            used = any(name in gradients for name in self.own_parameters)
            badge = NOT_CALLED if used else NEVER_RAN
        return {
            "path": self.path,
            "type": self.type,
            "call_index": self.call_index,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "bytes": self.bytes,
            "output_bytes": self.output_bytes,
            "batch_first": self.batch_first,
            "badge": badge,
        }


def shapes(given: Any) -> Shapes:
    """Sizes of all tensors in what was given; ``*`` where those of a nested one's parts differ."""
    return [_sizes(tensor) for tensor in tensors_in(given)]


def _sizes(tensor: Tensor) -> list[int | str]:
    if not tensor.is_nested:
        return list(tensor.shape)
    found: list[int | str] = []
    for dimension in range(tensor.dim()):
        try:
            size = tensor.size(dimension)
            found.append(size if type(size) is int else "*")
        except RuntimeError:  # of an irregular one
            found.append("*")
    return found


def walk(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, ModuleRecord]]:
    """Every module once, in registration order, with a fresh record.

    A compiled module stands for the module it wraps. What lies inside compiled or scripted
    modules carries the reason in its badge: forward hooks there would not run.
    """
    opaque: dict[str, str] = {}
    for path, module in model.named_modules():
        if path.rpartition(".")[2] == "_orig_mod":
            continue
        record = _describe(plain(path), module)
        above = (why for prefix, why in opaque.items() if path.startswith(prefix))
        record.badge = next(above, "")
        if not record.badge and (why := _opacity(module)):
            opaque[path + "." if path else ""] = why
            if why is SCRIPTED or module._compiled_call_impl is not None:
                record.badge = why
        yield module, record


def document(records: list[ModuleRecord], gradients: frozenset[str]) -> dict[str, Any]:
    """The ``modules`` document: rows in call order, then those that were never called.

    Args:
        gradients: names of the parameters that have one.
    """
    called = sorted((r for r in records if r.call_index >= 0), key=lambda r: r.call_index)
    rest = [r for r in records if r.call_index < 0]
    return {"modules": [record.row(gradients) for record in (*called, *rest)]}


def _describe(path: str, module: torch.nn.Module) -> ModuleRecord:
    own = [(f"{path}.{n}" if path else n) for n, _ in module.named_parameters(recurse=False)]
    tensors = [p for p in module.parameters() if not is_lazy(p)]
    first = getattr(module, "batch_first", None)
    return ModuleRecord(
        path=path,
        type=type(getattr(module, "_orig_mod", module)).__name__,
        parameters=sum(p.numel() for p in tensors),
        trainable=sum(p.numel() for p in tensors if p.requires_grad),
        bytes=sum(p.numel() * p.element_size() for p in tensors),
        own_parameters=tuple(own),
        container=next(iter(module.children()), None) is not None,
        batch_first=first if isinstance(first, bool) else None,
    )


def _opacity(module: torch.nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return SCRIPTED
    if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
        return COMPILED
    return ""
