"""A tensor as plain data: all numbers of a small one, statistics and a small map of a large one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

SMALL = 64  # elements that are listed one by one
ROWS, COLUMNS = 16, 32  # most cells of the map
_SAMPLED = 1 << 20  # elements of which the map is made, at most


def portrait(tensor: Tensor | None, *, rows: int = ROWS) -> dict[str, Any] | None:
    """What a reader can be shown of a tensor; JSON has no NaN, so non-finite numbers are words.

    Returns:
        None for None, else ``shape, dtype, norm, nan, inf`` and, of a tensor with at most
        ``SMALL`` elements, ``values`` (flat, row by row); of a larger one ``min, max, mean, std,
        zeros`` (share, of the finite elements) and ``map`` (rows of at most ``rows`` × 32 cells,
        each the number of largest size in its part of the tensor, the first dimension downwards).
    """
    if tensor is None:
        return None
    record: dict[str, Any] = {
        "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."),
        "norm": None, "nan": 0, "inf": 0, "values": None, "map": None,
    }  # fmt: skip
    with torch.no_grad():
        flat = _real(tensor)
        if flat is None or flat.numel() == 0:
            return record
        record["norm"] = plain(float(torch.linalg.vector_norm(flat, dtype=_wide(flat))))
        if flat.numel() <= SMALL:
            values = flat.flatten().tolist()
            record["values"] = [plain(value) for value in values]
            record["nan"] = sum(value != value for value in values)
            record["inf"] = sum(math.isinf(value) for value in values)
            return record
        record |= _statistics(flat, finite=isinstance(record["norm"], float))
        record["map"] = _map(flat, rows)
    return record


def bad(record: dict[str, Any] | None) -> str:
    """``nan``, ``inf`` or "" for what a portrait holds."""
    if record is None:
        return ""
    return "nan" if record["nan"] else "inf" if record["inf"] else ""


def plain(value: float) -> float | str:
    """A number that JSON can hold: six significant digits, or ``nan``, ``inf``, ``-inf``."""
    if math.isfinite(value):
        return float(f"{value:.7g}")
    return "nan" if value != value else "inf" if value > 0 else "-inf"


def _real(tensor: Tensor) -> Tensor | None:
    """The tensor as real floating point, dense; None where there are no numbers to read."""
    if tensor.device.type == "meta" or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    elif tensor.layout is not torch.strided:
        return None
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _statistics(flat: Tensor, *, finite: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"nan": 0, "inf": 0}
    if not finite:
        nan, inf = torch.stack([flat.isnan().sum(), flat.isinf().sum()]).tolist()
        found = {"nan": int(nan), "inf": int(inf)}
        flat = flat[flat.isfinite()]
        if not flat.numel():
            return found
    low, high = torch.aminmax(flat)
    spread, mean = torch.std_mean(flat, correction=0)
    zeros = (flat == 0).sum() / flat.numel()
    names = ("min", "max", "mean", "std", "zeros")
    numbers = torch.stack([low, high, mean, spread, zeros.to(flat.dtype)]).tolist()
    return found | dict(zip(names, map(plain, numbers), strict=True))


def _map(tensor: Tensor, rows: int) -> list[list[float | str]]:
    plane = tensor.reshape(tensor.shape[0], -1) if tensor.ndim > 1 else _folded(tensor)
    while plane.numel() > _SAMPLED:
        plane = plane[:, ::2] if plane.shape[1] > plane.shape[0] else plane[::2]
    plane = plane.float().cpu()
    size = (min(rows, plane.shape[0]), min(COLUMNS, plane.shape[1]))
    _, places = adaptive_max_pool2d(plane.abs()[None], size, return_indices=True)
    cells = plane.flatten()[places[0]]
    return [[_short(value) for value in row] for row in cells.tolist()]


def _folded(vector: Tensor) -> Tensor:
    """A vector as rows of equal length, filled up with zeros."""
    width = min(COLUMNS, vector.numel())
    missing = -vector.numel() % width
    return torch.nn.functional.pad(vector, (0, missing)).reshape(-1, width)


def _short(value: float) -> float | str:
    return float(f"{value:.3g}") if math.isfinite(value) else plain(value)
