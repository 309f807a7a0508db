"""Statistics of tensors with as few kernels as possible; sources are never modified.

Each function takes tensors of any dtype and layout and answers ``ABSENT`` where the number does
not exist (integers, meta device, quantized, lazily uninitialized).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from inspector.capture.transfer import ABSENT, Scalar, scalar

_PLAIN = (Tensor, torch.nn.Parameter)
_SMALL_FLOATS = (torch.float16, torch.bfloat16)
_TOGETHER = 1 << 24  # numbers that are copied into one piece to be looked at


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
    """L2 norm of each dense tensor; accumulated in float32 or wider, in float64 on CUDA."""
    result: list[Scalar] = [ABSENT] * len(tensors)
    _measure_alike(_norms_alike, tensors, range(len(tensors)), result)
    for position, value in enumerate(result):
        if isinstance(value, float) and value == math.inf:
            result[position] = _careful_norm(tensors[position])
    return result


def _norms_alike(tensors: list[Tensor]) -> Iterable[Scalar]:
    wide = _accumulated(tensors[0])
    if len(tensors) == 1:  # one launch where the other way needs four
        return [scalar(torch.linalg.vector_norm(tensors[0], dtype=wide))]
    return map(scalar, torch._foreach_norm(tensors, 2, dtype=wide))


def _measure_alike(
    measure: Callable[[list[Tensor]], Iterable[Scalar]],
    tensors: Sequence[Tensor],
    positions: Iterable[int],
    result: list[Scalar],
) -> None:
    """Puts into ``result`` what is measured of the tensors at some positions.

    Those of one type and device are measured together.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for position in positions:
        tensor = tensors[position]
        kinds.setdefault((tensor.dtype, tensor.device), []).append(position)
    for places in kinds.values():
        found = measure([tensors[position] for position in places])
        for position, value in zip(places, found, strict=True):
            result[position] = value


def _accumulated(tensor: Tensor) -> torch.dtype | None:
    """What squares are summed in: where the result is read later, they are not to overflow."""
    if tensor.is_cuda and tensor.dtype.is_floating_point:
        return torch.float64
    return torch.float32 if tensor.dtype in _SMALL_FLOATS else None


def _careful_norm(tensor: Tensor) -> float:
    """The norm without overflow of its squares; infinite only where the tensor is."""
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return float(torch.linalg.vector_norm(wide))


def largest_values(tensors: Sequence[Tensor]) -> list[Scalar]:
    """Largest absolute value of each; NaN when there is a NaN, 0 where there are no values."""
    result: list[Scalar] = [0.0] * len(tensors)
    away: list[int] = []
    for position, tensor in enumerate(tensors):
        if tensor.is_cpu:
            result[position] = _largest(tensor)
        elif tensor.numel():
            away.append(position)
    _measure_alike(lambda alike: torch._foreach_norm(alike, math.inf), tensors, away, result)
    return result


def _largest(tensor: Tensor) -> float:
    if tensor.numel() == 0:
        return 0.0
    if tensor.is_complex():
        return tensor.abs().max().item()
    low, high = (value.item() for value in torch.aminmax(tensor))
    return low if math.isnan(low) else max(-low, high)


def count_nonfinite(tensor: Tensor) -> Scalar:
    """Number of NaN and infinite values."""
    if tensor.is_cpu:
        return tensor.numel() - torch.isfinite(tensor).sum().item()
    return _difference(tensor).count_nonzero()


def _difference(tensor: Tensor) -> Tensor:
    """Zero but where there is NaN or infinity: one operation, where asking PyTorch takes four."""
    return tensor - tensor


def nonfinite_counts(tensors: Sequence[Tensor], largest_values: Sequence[Scalar]) -> list[Scalar]:
    """Number of NaN and infinite values of each; counts only where the largest value is known
    to be non-finite, or not known to the host yet."""
    result: list[Scalar] = [0.0] * len(tensors)
    away: list[int] = []
    for position, value in enumerate(largest_values):
        if isinstance(value, Tensor):
            away.append(position)
        elif not math.isfinite(value):
            result[position] = count_nonfinite(tensors[position])
    _measure_alike(_counts_together, tensors, away, result)
    return result


def _counts_together(tensors: Sequence[Tensor]) -> Iterable[Tensor]:
    """The counts of tensors of one kind, with a few launches for as many as fit together."""
    together: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        if together and elements + tensor.numel() > _TOGETHER:
            yield from _counts_of(together)
            together, elements = [], 0
        together.append(tensor)
        elements += tensor.numel()
    yield from _counts_of(together)


def _counts_of(tensors: Sequence[Tensor]) -> Iterable[Tensor]:
    if len(tensors) == 1:
        return [_difference(tensors[0]).count_nonzero()]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    running = (_difference(flat) != 0).cumsum(0, dtype=torch.int32)
    ends = itertools.accumulate(tensor.numel() for tensor in tensors)
    so_far = torch.stack([running[end - 1] for end in ends])
    return so_far.diff(prepend=so_far.new_zeros(1)).unbind()


def spread(scalars: Sequence[Scalar], positions: Sequence[int], size: int) -> list[Scalar]:
    """A list of ``size`` entries with the scalars at their positions and ``ABSENT`` elsewhere."""
    if len(positions) == size:
        return list(scalars)
    result: list[Scalar] = [ABSENT] * size
    for position, value in zip(positions, scalars, strict=True):
        result[position] = value
    return result
