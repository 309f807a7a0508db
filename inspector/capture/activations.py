"""Statistics of module outputs, taken inside the forward hook (later operations may overwrite).

The statistics are those of the first floating-point tensor of a module's output, over all calls
of the module that belong to one optimizer step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.capture.entries import Rows
from inspector.capture.reductions import count_nonfinite
from inspector.capture.transfer import Scalar, scalar

SATURATION = 0.03
"""An output within this distance of its function's bounds (1 for tanh) counts as saturated."""

_CANCELLED = 2e-3  # below this share of the mean square, the variance needs the careful way
_LOST = 1e-4  # below this one the fast result has no correct digits worth showing


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Positions of one call's numbers in its list."""

    index: int = 0
    count: int = 1
    sum: int = 2
    norm: int = 3
    zeros: int = 4
    saturated: int = 5
    nonfinite: int = 6
    careful: int = 7


AT = Entry()


def tensors_in(output: Any, depth: int = 0) -> Iterator[Tensor]:
    """All tensors of an output: tensor, tuple, list, mapping, dataclass, nested to depth 4."""
    if isinstance(output, Tensor):
        yield output
    elif depth < 4:
        if isinstance(output, (tuple, list)):
            parts: Any = output
        elif isinstance(output, dict):
            parts = output.values()
        elif dataclasses.is_dataclass(output) and not isinstance(output, type):
            parts = [getattr(output, f.name, None) for f in dataclasses.fields(output)]
        else:
            parts = ()
        for part in parts:
            yield from tensors_in(part, depth + 1)


def main_tensor(output: Any) -> Tensor | None:
    """The tensor of an output whose statistics are taken: the first with floating point."""
    if isinstance(output, Tensor):
        return output
    first = None
    for tensor in tensors_in(output):
        if tensor.dtype.is_floating_point:
            return tensor
        first = tensor if first is None else first
    return first


def why_unmeasurable(tensor: Tensor) -> str:
    """The reason why a tensor has no activation statistics; empty when it has."""
    if tensor.dtype.is_complex:
        return "output is complex"
    if not tensor.dtype.is_floating_point:
        return f"output is {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_quantized or tensor.dtype.itemsize < 2:
        return "output is quantized"
    if tensor.is_meta:
        return "output is on the meta device"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "output is sparse or nested"
    return ""


def bounds_of(module: torch.nn.Module) -> tuple[float, float] | None:
    """Below and above which an output counts as saturated; None for unbounded functions."""
    if isinstance(module, torch.nn.Tanh):
        return -1 + SATURATION, 1 - SATURATION
    if isinstance(module, torch.nn.Sigmoid):
        return SATURATION / 2, 1 - SATURATION / 2
    return None


def measure_output(
    index: int, output: Tensor, bounds: tuple[float, float] | None, careful: bool
) -> list[Scalar]:
    """One entry; ``careful`` computes the variance around the mean, which is slow but exact."""
    x = output.detach()
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    count = x.numel()
    zeros: Scalar = count - torch.count_nonzero(x).item() if x.is_cpu else (x == 0).sum()
    if careful:
        variance, mean = torch.var_mean(x.to(wide), correction=0)
        total, spread = scalar(mean * count), scalar(variance)
    else:
        total = scalar(x.sum(dtype=wide))
        spread = scalar(torch.linalg.vector_norm(x, dtype=wide))
    nonfinite: Scalar
    if not isinstance(spread, float):
        nonfinite = count_nonfinite(x)
    elif math.isfinite(spread):
        nonfinite = 0.0
    else:
        nonfinite = count_nonfinite(x)
        if not careful and spread == math.inf and nonfinite == 0:  # squares overflow
            spread = float(torch.linalg.vector_norm(x.double()))
    saturated: Scalar = 0.0
    if bounds is not None:
        values = x.to(wide)
        outside = (values < bounds[0]) | (values > bounds[1])
        saturated = scalar(torch.count_nonzero(outside))
    return [float(index), float(count), total, spread, zeros, saturated, nonfinite, float(careful)]


@dataclasses.dataclass(slots=True)
class ModuleStatistics:
    """One array per statistic, float64, one entry per module; NaN in ``count == 0`` rows.

    ``careful`` holds the modules whose variance needs the careful way from now on; ``lost``
    marks those whose standard deviation of this step is not to be trusted.
    """

    count: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    zeros: np.ndarray
    saturated: np.ndarray
    nonfinite: np.ndarray
    lost: np.ndarray
    careful: set[int]


def combine(entries: Rows | list[list[Scalar]], modules: int) -> ModuleStatistics:
    """Joins the calls of each module into the statistics of all their values together."""
    table = np.array(entries, dtype=np.float64).reshape(-1, 8)
    index = table[:, AT.index].astype(np.intp)
    count = np.bincount(index, table[:, AT.count], modules)
    total = np.bincount(index, table[:, AT.sum], modules)
    with np.errstate(all="ignore"):
        squares = table[:, AT.sum] ** 2 / table[:, AT.count]
        deviations = np.where(
            table[:, AT.careful] > 0,
            table[:, AT.norm] * table[:, AT.count],
            table[:, AT.norm] ** 2 - squares,
        )
        share = deviations / (deviations + squares)
        within = np.bincount(index, deviations, modules)
        mean = total / count
        between = np.bincount(index, squares, modules) - total * mean
        std = np.sqrt(np.maximum(within + np.maximum(between, 0.0), 0.0) / count)
        fast = table[:, AT.careful] == 0
        careful = set(index[share < _CANCELLED].tolist())
        lost = np.zeros(modules, dtype=bool)
        lost[index[fast & (share < _LOST) & (table[:, AT.norm] > 0)]] = True
        overflown = np.isinf(table[:, AT.norm]) & (table[:, AT.nonfinite] == 0)
        lost[index[overflown]] = True  # its squares did, on a device
        nonfinite = np.bincount(index, table[:, AT.nonfinite], modules)
        return ModuleStatistics(
            count=count,
            mean=mean,
            std=np.where(nonfinite > 0, np.nan, std),
            zeros=np.bincount(index, table[:, AT.zeros], modules) / count,
            saturated=np.bincount(index, table[:, AT.saturated], modules) / count,
            nonfinite=nonfinite,
            lost=lost,
            careful=careful,
        )
