"""Comparing an exported model with PyTorch's own on real samples, at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from inspector.errors import ExportError
from inspector.exports.model.inputs import BATCH, WIDTH, Inputs
from inspector.exports.model.rebuilt import Rebuilt
from inspector.numerals import short

ABSOLUTE = 1e-4
RELATIVE = 1e-3
"""An output may differ by ABSOLUTE + RELATIVE · |PyTorch's|: float32 rounding in another order of
summation stays far below, a wrong operator far above (the tolerances of torch.onnx's verifier)."""

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Parity:
    """The greatest differences over all outputs and batch sizes.

    Attributes:
        max_rel: relative to the greatest absolute output of each sample batch.
        excess: greatest share of the tolerance that was used up; above 1 is refused.
        sizes: of the batches; empty where the size is fixed.
        widths: of strips or sequences, where they vary.
    """

    max_abs: float
    max_rel: float
    excess: float
    sizes: tuple[int, ...]
    widths: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        sizes = ", ".join(map(str, self.sizes))
        widths = f" and widths of {', '.join(map(str, self.widths))}" if self.widths else ""
        return (
            f"Agrees with PyTorch on batches of {sizes or 'one size'}{widths}: largest difference "
            f"{short(self.max_abs, 2)}, relative {short(self.max_rel, 2)} "
            f"(tolerated: {short(ABSOLUTE, 6)} + {short(RELATIVE, 6)} · |output|)."
        )


def compare(rebuilt: Rebuilt, other: Callable[[Inputs], Any], what: str) -> Parity:
    """Runs both on 1, 2, some and all samples of the batch, in other orders too.

    Where widths vary, all samples are cut to two thirds as well.

    Args:
        other: the exported model: what it is called with in, tensors or arrays out.

    Raises:
        ExportError: an output differs by more than the tolerance, or in shape; there is none; or
            the exported model does not run.
    """
    inputs = rebuilt.inputs
    count, width = inputs.length(BATCH), inputs.length(WIDTH)
    sizes = tuple(dict.fromkeys((1, 2, max(2, count // 2 + 1), count))) if count else ()
    widths = (width, max(1, width * 2 // 3)) if width else ()
    parts = [{BATCH: size} for size in sizes or (count,)] + [{WIDTH: one} for one in widths[1:]]
    worst_abs = worst_rel = worst = 0.0
    for part in parts:
        called = inputs.part(**part)
        wanted = flat(called.into(rebuilt.model))
        size = f"{called.length(BATCH) or 'that size'}"
        if WIDTH in part:
            size += f", {part[WIDTH]} wide"
        try:
            got = flat(other(called))
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExportError(
                f"{what} does not run on a batch of {size}, so it is not written: {first:.200}"
            ) from error
        if not wanted or [one.shape for one in wanted] != [one.shape for one in got]:
            raise ExportError(
                f"{what} gives outputs of shape {[one.shape for one in got]} for a batch of {size},"
                f" but PyTorch {[one.shape for one in wanted]}; it is not written."
            )
        for mine, theirs in zip(wanted, got, strict=True):
            absolute, relative, share = _differences(mine, theirs)
            worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
            worst = max(worst, share)
            if not share <= 1:
                raise ExportError(
                    f"{what} differs from PyTorch by {short(absolute, 3)} on a batch of {size} "
                    f"(tolerated: {short(ABSOLUTE, 6)} + {short(RELATIVE, 6)} · |output|), "
                    "so it is not written: "
                    "does the model branch on its data, or draw random numbers in eval mode?"
                )
    return Parity(worst_abs, worst_rel, worst, sizes, widths)


def flat(outputs: Any) -> list[Numbers]:
    """Every tensor of a model's output, in order, as arrays."""
    leaves = tree_leaves(outputs)
    found = [
        leaf.detach().cpu().to(_plain(leaf)).numpy() if isinstance(leaf, Tensor) else leaf
        for leaf in leaves
    ]
    return [np.asarray(leaf) for leaf in found if isinstance(leaf, np.ndarray)]


def _plain(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype


def _differences(mine: Numbers, theirs: Numbers) -> tuple[float, float, float]:
    """Greatest absolute and relative difference, and greatest share of the tolerance."""
    if mine.size == 0:
        return 0.0, 0.0, 0.0
    mine, theirs = mine.astype(np.float64), theirs.astype(np.float64)
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(mine - theirs))
    gap = np.where(np.isnan(gap), np.inf, gap)
    size = np.abs(np.where(np.isfinite(mine), mine, 0.0))
    top = float(size.max())
    greatest = float(gap.max())
    share = float((gap / (ABSOLUTE + RELATIVE * size)).max())
    return greatest, greatest / top if top else greatest, share
