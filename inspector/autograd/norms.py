"""Gradient norms at every node of one backward pass, brought to the host in one transfer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle


class NodeNorms:
    """L2 norms of the gradients that arrive at each node, as the engine visits it.

    Norms are accumulated in float64 (float32 where the device has none), so a norm is non-finite
    exactly when a value of the gradient is. A node that fires twice keeps its last norm.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self._norms: dict[int, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = [
            node.register_prehook(self._watch(position)) for position, node in enumerate(nodes)
        ]
        self.failure = ""

    def collect(self) -> dict[int, float]:
        """Takes the hooks off and returns the norm by position of the node."""
        self.remove()
        positions: dict[torch.device, list[int]] = {}
        for position, norm in self._norms.items():
            positions.setdefault(norm.device, []).append(position)
        values: dict[int, float] = {}
        for members in positions.values():
            stacked = torch.stack([self._norms[position] for position in members])
            values.update(zip(members, stacked.tolist(), strict=True))
        self._norms.clear()
        return values

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _watch(self, position: int) -> Any:
        def prehook(gradients: tuple[torch.Tensor | None, ...]) -> None:
            try:
                with torch.no_grad():
                    norms = [_norm(gradient) for gradient in gradients if gradient is not None]
                    if norms:
                        one = norms[0] if len(norms) == 1 else _norm(torch.stack(norms))
                        self._norms[position] = one
            except Exception as error:  # an error here would abort the user's backward pass
                self.failure = repr(error)

        return prehook


def as_record(norm: float | None) -> dict[str, Any]:
    """``grad_norm`` (None when unknown or non-finite) and ``nonfinite`` ("", "nan" or "inf")."""
    if norm is None:
        return {"grad_norm": None, "nonfinite": ""}
    if math.isfinite(norm):
        return {"grad_norm": norm, "nonfinite": ""}
    return {"grad_norm": None, "nonfinite": "nan" if math.isnan(norm) else "inf"}


def _norm(gradient: torch.Tensor) -> torch.Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj())
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    norm: torch.Tensor = torch.linalg.vector_norm(gradient, dtype=wide)
    return norm
