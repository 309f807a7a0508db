"""Statistics of tensors with as few kernels as possible; sources are never modified.

Each function takes tensors of any dtype and layout and answers ``ABSENT`` where the number does
not exist (integers, meta device, quantized, lazily uninitialized).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from inspector.capture.transfer import ABSENT, Scalar, scalar

_PLAIN = (Tensor, torch.nn.Parameter)
_SMALL_FLOATS = (torch.float16, torch.bfloat16)


def is_sharded(tensor: Tensor) -> bool:
    """Whether several ranks share it (DTensor, as in FSDP): operations on it are collective."""
    return type(tensor) not in _PLAIN and hasattr(tensor, "_local_tensor")


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; any other tensor as it is."""
    return tensor._local_tensor if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def measurable(tensor: Tensor | None) -> bool:
    """Whether norms of the tensor exist: real or complex numbers with storage, dense or sparse."""
    return (
        tensor is not None
        and (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
        and tensor.dtype.itemsize > 1
        and not tensor.is_meta
        and not tensor.is_quantized
        and not is_lazy(tensor)
    )


def values_of(tensor: Tensor) -> Tensor | None:
    """The numbers of a tensor as a dense detached one; None where there are none to measure.

    Those of a sharded tensor are this rank's.
    """
    if not measurable(tensor):
        return None
    tensor = local(tensor).detach()
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce().values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.values()
    return tensor


def norms(tensors: Sequence[Tensor]) -> list[Scalar]:
    """L2 norm of each dense tensor; accumulated in float32 or wider."""
    if not tensors:
        return []
    small = [tensor.dtype in _SMALL_FLOATS for tensor in tensors]
    if any(small):
        if all(small):
            found: Sequence[Tensor] = torch._foreach_norm(list(tensors), 2, dtype=torch.float32)
        else:
            found = [torch.linalg.vector_norm(t.float() if s else t)
                     for t, s in zip(tensors, small, strict=True)]  # fmt: skip
    else:
        found = torch._foreach_norm(list(tensors), 2)
    result: list[Scalar] = [scalar(value) for value in found]
    for position, value in enumerate(result):
        if isinstance(value, float) and value == math.inf:
            result[position] = _careful_norm(tensors[position])
    return result


def _careful_norm(tensor: Tensor) -> float:
    """The norm without overflow of its squares; infinite only where the tensor is."""
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return float(torch.linalg.vector_norm(wide))


def largest(tensor: Tensor) -> Scalar:
    """Largest absolute value; NaN when there is a NaN."""
    if tensor.numel() == 0:
        return 0.0
    if tensor.is_complex():
        return scalar(tensor.abs().max())
    low, high = torch.aminmax(tensor)
    if tensor.is_cpu:
        a, b = low.item(), high.item()
        return a if math.isnan(a) else max(-a, b)
    return torch.maximum(-low, high)


def count_nonfinite(tensor: Tensor) -> Scalar:
    """Number of NaN and infinite values."""
    return scalar(tensor.numel() - torch.isfinite(tensor).sum())


def nonfinite_counts(tensors: Sequence[Tensor], largest_values: Sequence[Scalar]) -> list[Scalar]:
    """Number of NaN and infinite values of each; counts only where the largest value is known
    to be non-finite, or not known to the host yet."""
    return [
        0.0 if isinstance(value, float) and math.isfinite(value) else count_nonfinite(tensor)
        for tensor, value in zip(tensors, largest_values, strict=True)
    ]


def spread(scalars: Sequence[Scalar], positions: Sequence[int], size: int) -> list[Scalar]:
    """A list of ``size`` entries with the scalars at their positions and ``ABSENT`` elsewhere."""
    if len(positions) == size:
        return list(scalars)
    result: list[Scalar] = [ABSENT] * size
    for position, value in zip(positions, scalars, strict=True):
        result[position] = value
    return result
