"""Which parameters are measured: those of the model, and those an optimizer has besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from inspector.capture.reductions import is_sharded, measurable


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """The measured parameters, each once, however often it is shared.

    Attributes:
        names: as in ``named_parameters()``, without wrapper prefixes; parameters that only an
            optimizer knows are called ``optimizer.GROUP.POSITION``.
        tensors: the parameters themselves.
        owners: path of the module that owns each, None for the optimizer's own.
        optimized: whether an optimizer steps it.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    owners: tuple[str | None, ...]
    optimized: tuple[bool, ...]

    def matches(self, model: torch.nn.Module, optimizers: Sequence[Any]) -> bool:
        """Whether the model and the optimizers still hold exactly these parameters."""
        found = collect(model, optimizers)
        return [id(t) for t in found.tensors] == [id(t) for t in self.tensors]

    @property
    def with_gradient(self) -> frozenset[str]:
        """Names of those that have a gradient."""
        pairs = zip(self.names, self.tensors, strict=True)
        return frozenset(name for name, tensor in pairs if tensor.grad is not None)

    def document(self) -> dict[str, Any]:
        """The ``parameters`` document."""
        rows = []
        for name, tensor, owner, optimized in zip(
            self.names, self.tensors, self.owners, self.optimized, strict=True
        ):
            lazy = is_lazy(tensor)
            rows.append(
                {
                    "name": name,
                    "module": owner,
                    "shape": [] if lazy else list(tensor.shape),
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "device": str(tensor.device),
                    "elements": 0 if lazy else tensor.numel(),
                    "bytes": 0 if lazy else tensor.numel() * tensor.element_size(),
                    "trainable": tensor.requires_grad,
                    "optimized": optimized,
                    "badge": _badge(tensor, optimized),
                }
            )
        return {"parameters": rows}


def plain(name: str) -> str:
    """A parameter or module path without what ``torch.compile`` puts into it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def collect(model: torch.nn.Module, optimizers: Sequence[Any]) -> ParameterSet:
    """The parameters that model and optimizers hold now."""
    stepped = {
        id(tensor): f"optimizer.{g}.{position}"
        for optimizer in optimizers
        for g, group in enumerate(optimizer.param_groups)
        for position, tensor in enumerate(group["params"])
    }
    names: list[str] = []
    tensors: list[Tensor] = []
    owners: list[str | None] = []
    known: set[int] = set()
    for name, tensor in model.named_parameters():
        known.add(id(tensor))
        names.append(plain(name))
        tensors.append(tensor)
        owners.append(plain(name).rpartition(".")[0])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                if id(tensor) not in known:
                    known.add(id(tensor))
                    names.append(stepped[id(tensor)])
                    tensors.append(tensor)
                    owners.append(None)
    return ParameterSet(
        tuple(names), tuple(tensors), tuple(owners), tuple(id(t) in stepped for t in tensors)
    )


def _badge(tensor: Tensor, optimized: bool) -> str:
    if is_lazy(tensor):
        return "not initialized yet: the module is lazy"
    if not measurable(tensor):
        return f"no norms for {str(tensor.dtype).removeprefix('torch.')} on {tensor.device.type}"
    if not tensor.requires_grad:
        return "frozen"
    if not optimized:
        return "no optimizer steps it"
    if is_sharded(tensor):
        return "sharded: the norms are those of this rank's part"
    return ""
