"""Whether labels have anything to do with inputs: do nearest neighbours share their label?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SAMPLES = 512
_FEATURES = 256


class Sample:
    """A small copy of the first samples; forgotten as soon as the answer is computed."""

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._count = 0
        self._answer: dict[str, Any] | None = None

    @property
    def full(self) -> bool:
        return self._count >= _SAMPLES

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        if self.full or inputs.dim() < 2 or not inputs.dtype.is_floating_point:
            return
        classes = not targets.dtype.is_floating_point
        if classes and targets.dim() != 1:
            return
        if not classes and (targets.dim() > 2 or targets.shape[1:] not in ((), (1,))):
            return
        if classes and torch.equal(targets, torch.arange(len(targets), device=targets.device)):
            return  # contrastive: labels are positions in the batch
        flat = inputs.float().flatten(1)
        stride = max(flat.shape[1] // _FEATURES, 1)
        self._inputs.append(flat[:, ::stride][:, :_FEATURES].clone())
        if targets.dim() == 2:
            targets = targets[:, 0]
        self._targets.append(targets.clone())
        self._count += len(flat)
        self._answer = None

    def document(self) -> dict[str, Any]:
        """Agreement of nearest neighbours beside what chance gives; empty with few samples."""
        if self._answer is None:
            self._answer = self._compare()
            if self.full:
                self._inputs, self._targets = [], []
        return self._answer

    def _compare(self) -> dict[str, Any]:
        if self._count < 64:
            return {}
        inputs, targets = torch.cat(self._inputs), torch.cat(self._targets)
        whole = inputs[:_SAMPLES].isfinite().all(1)  # the others have a finding of their own
        inputs, targets = inputs[:_SAMPLES][whole].double(), targets[:_SAMPLES][whole]
        if len(inputs) < 64:
            return {}
        inputs = ((inputs - inputs.mean(0)) / inputs.std(0).clamp_min(1e-6)).float()
        # The fast way through a matrix product does not give zero for equal samples.
        distances = torch.cdist(inputs, inputs, compute_mode="donot_use_mm_for_euclid_dist")
        # The same sample twice (small data, several epochs) says nothing about its neighbours.
        same = distances < 1e-4
        distances[same] = torch.inf
        different = round(float((1 / same.sum(1)).sum()))
        nearest = distances.argmin(1)
        if targets.dtype.is_floating_point and bool(((targets != 0) & (targets != 1)).any()):
            pairs = torch.stack([targets.float(), targets[nearest].float()])
            correlation = float(torch.corrcoef(pairs)[0, 1])
            return {"samples": different, "correlation": correlation}
        labels = targets.long()
        agreement = float((labels == labels[nearest]).float().mean())
        share = torch.bincount(labels - labels.min()).float() / len(labels)
        chance = float(share.square().sum())
        if chance > 0.9:
            return {}  # nearly one class only: agreement says nothing
        error = (max(chance * (1 - chance), 1e-9) / len(labels)) ** 0.5
        return {
            "samples": different,
            "agreement": agreement,
            "chance": chance,
            "standard_errors": (agreement - chance) / error,
        }
