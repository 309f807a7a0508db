"""The input shapes that PyTorch's own modules want, read from their attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def wanted(module: nn.Module, x: Tensor) -> str | None:
    """The shape (or type) that ``module`` wants, if ``x`` does not have it.

    None when ``x`` fits, or when nothing is known about modules of that type.
    """
    for types, expect in _EXPECTATIONS:
        if isinstance(module, types):
            return expect(module, x)
    return None


def _last(x: Tensor, size: int) -> str | None:
    return None if x.ndim and x.shape[-1] == size else f"(…, {size})"


def _linear(module: Any, x: Tensor) -> str | None:
    return _last(x, module.in_features)


def _conv(module: Any, x: Tensor) -> str | None:
    spatial = len(module.kernel_size)
    axes = ("length",) if spatial == 1 else ("depth", "height", "width")[-spatial:]
    shape = f"(batch, {module.in_channels}, {', '.join(axes)})"
    if x.ndim not in (spatial + 1, spatial + 2) or x.shape[-spatial - 1] != module.in_channels:
        return shape
    if isinstance(module, _ConvTransposeNd) or isinstance(module.padding, str):
        return None
    reach = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    least = [max(1, r - 2 * p) for r, p in zip(reach, module.padding, strict=True)]
    if any(size < need for size, need in zip(x.shape[-spatial:], least, strict=True)):
        return f"{shape} with at least {' × '.join(map(str, least))} pixels"
    return None


def _recurrent(module: Any, x: Tensor) -> str | None:
    if x.ndim in (2, 3) and x.shape[-1] == module.input_size:
        return None
    order = "batch, steps" if module.batch_first else "steps, batch"
    return f"({order}, {module.input_size})"


def _cell(module: Any, x: Tensor) -> str | None:
    fits = x.ndim in (1, 2) and x.shape[-1] == module.input_size
    return None if fits else f"(batch, {module.input_size})"


def _batch_norm(module: Any, x: Tensor) -> str | None:
    axes: tuple[int, ...] = {"1": (2, 3), "2": (4,), "3": (5,)}.get(
        type(module).__name__[-2:-1], (2, 3, 4, 5)
    )
    if x.ndim in axes and x.shape[1] == module.num_features:
        return None
    return f"(batch, {module.num_features}{', …' if max(axes) > 2 else ''}) of {axes[-1]} axes"


def _layer_norm(module: Any, x: Tensor) -> str | None:
    tail = tuple(module.normalized_shape)
    if tuple(x.shape[-len(tail) :]) == tail:
        return None
    return f"(…, {', '.join(map(str, tail))})"


def _group_norm(module: Any, x: Tensor) -> str | None:
    fits = x.ndim >= 2 and x.shape[1] == module.num_channels
    return None if fits else f"(batch, {module.num_channels}, …)"


def _embedding(module: Any, x: Tensor) -> str | None:
    if x.dtype not in (torch.int32, torch.int64):
        return f"whole numbers (it got {x.dtype})"
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= module.num_embeddings):
        return f"numbers from 0 to {module.num_embeddings - 1} (it got {x.min()} to {x.max()})"
    return None


def _attention(module: Any, x: Tensor) -> str | None:
    return _last(x, module.embed_dim)


_EXPECTATIONS: tuple[tuple[Any, Callable[[Any, Tensor], str | None]], ...] = (
    (nn.Linear, _linear),
    (_ConvNd, _conv),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
    (_NormBase, _batch_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.MultiheadAttention, _attention),
)
