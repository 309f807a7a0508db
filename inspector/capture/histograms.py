"""Histograms of weights, gradients and activations, on a slow schedule of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inspector.capture.reductions import values_of
from inspector.capture.transfer import to_host

BINS = 64
_SAMPLE = 65_536  # a longer tensor is strided down to at most twice as many values
_EVERY_STEPS = 50
_EVERY_SECONDS = 1.0
_SUBJECTS = 128  # of each kind in one turn; the next turn goes on behind them
_SHARE = 0.003  # of the training time that histograms may take


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of ``BINS`` equal bins from ``low`` to ``high``; non-finite values are left out.

    ``kind`` is weight, gradient (as found after backward, unscaled) or activation.
    """

    kind: str
    subject: str
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(slots=True)
class HistogramBatch:
    """The histograms of one step, perhaps still on the device."""

    subjects: list[tuple[str, str]] = field(default_factory=list)
    packed: list[Tensor] = field(default_factory=list)
    hosts: list[Tensor] = field(default_factory=list)

    def add(self, kind: str, subject: str, tensor: Tensor | None) -> None:
        """Counts a tensor's values; those of the same subject replace what was there."""
        values = None if tensor is None else values_of(tensor)
        if values is None or values.is_complex() or not values.numel():
            return
        if (kind, subject) in self.subjects:  # a gradient to which another backward has added
            self.packed[self.subjects.index((kind, subject))] = _count(values)
        else:
            self.subjects.append((kind, subject))
            self.packed.append(_count(values))

    def depart(self) -> None:
        """Starts the copy to the host; it has arrived when a later copy has."""
        for tensor in self.packed:
            if tensor.is_cuda:
                self.hosts.append(to_host(tensor))
            else:
                self.hosts.append(tensor.cpu())
        self.packed.clear()

    def land(self, scale: float) -> Iterator[Histogram]:
        """The histograms; gradients are divided by the loss scale."""
        for (kind, subject), host in zip(self.subjects, self.hosts, strict=True):
            low, high, *counts = host.tolist()
            by = scale if kind == "gradient" else 1.0
            yield Histogram(kind, subject, low / by, high / by, tuple(int(c) for c in counts))


class HistogramSchedule:
    """At most every 50 steps and every second, and seldom enough to stay cheap.

    Never in two full steps running: what a full step costs is learnt from those without.
    """

    def __init__(self) -> None:
        self._step = -_EVERY_STEPS
        self._cost = 0.0
        self._just = False
        self._due = 0.0
        self._turn = 0

    def begins(self, step: int, bare: float | None = None) -> bool:
        """Whether histograms are taken in this full step; asked once for each.

        Args:
            bare: seconds of a step without watching, where known: the budget is a share of the
                time that is trained, in which pauses do not count.
        """
        spacing = max(_EVERY_STEPS, self._cost / (_SHARE * bare) if bare else 0)
        early = step - self._step < spacing or time.monotonic() < self._due
        self._just = not early and not self._just
        if self._just:
            self._step = step
        return self._just

    def ended(self, seconds: float) -> None:
        """Notes what the histograms of a step cost."""
        self._cost = seconds
        self._due = time.monotonic() + _EVERY_SECONDS
        self._turn += 1

    def pick(self, size: int) -> Sequence[int]:
        """Positions of the subjects whose turn it is."""
        if size <= _SUBJECTS:
            return range(size)
        turns = -(-size // _SUBJECTS)
        first = (self._turn % turns) * _SUBJECTS
        return range(first, min(size, first + _SUBJECTS))


def _count(values: Tensor) -> Tensor:
    """``low``, ``high`` and the counts in one float64 tensor, without waiting for a device."""
    x = values.reshape(-1)
    if x.numel() > 2 * _SAMPLE:
        x = x[:: x.numel() // _SAMPLE]
    x = x.double()
    finite = torch.isfinite(x)
    low = torch.where(finite, x, torch.inf).amin()
    high = torch.where(finite, x, -torch.inf).amax()
    width = torch.where(high > low, high - low, torch.ones_like(high))
    place = ((x - low) / width * BINS).nan_to_num(0.0, 0.0, 0.0).long().clamp_(0, BINS - 1)
    counts = torch.zeros(BINS, dtype=torch.float64, device=x.device)
    counts.scatter_add_(0, place, finite.double())
    return torch.cat((torch.stack((low, high)).nan_to_num(0.0, 0.0, 0.0), counts))
