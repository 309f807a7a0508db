"""Gradient statistics of all parameters at one moment."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inspector.capture import native
from inspector.capture.cells import LARGEST, NONFINITE, NORM, RECEIVED, ParameterCells
from inspector.capture.kernel import Kernel, Sizes, fits, load
from inspector.capture.reductions import (
    largest_values,
    measurable,
    nonfinite_counts,
    norms,
    spread,
    values_of,
)


def measure_gradients(parameters: tuple[Tensor, ...], cells: ParameterCells) -> None:
    """Norm, largest value and non-finite count of every gradient as it is now."""
    size = len(parameters)
    extension = native.load()
    if extension is not None and extension.gradients(parameters, *cells.at[: NONFINITE + 1]):
        cells.written(NORM, LARGEST, NONFINITE)
        return
    fast = _fast(parameters)
    if fast is not None:
        kernel, positions, gradients = fast
        found = kernel.gradients(gradients, Sizes(gradients))
        for row, part in zip((NORM, LARGEST, NONFINITE), found, strict=True):
            cells.put(row, spread(part, positions, size))
        return
    positions, gradients = _gradients_of(parameters)
    most = largest_values(gradients)
    counts = nonfinite_counts(gradients, most)
    cells.put(NORM, spread(norms(gradients), positions, size))
    cells.put(LARGEST, spread(most, positions, size))
    cells.put(NONFINITE, spread(counts, positions, size))


def measure_received(parameters: tuple[Tensor, ...], cells: ParameterCells) -> None:
    """L2 norm of every gradient as the optimizer receives it."""
    extension = native.load()
    if extension is not None and extension.gradients(parameters, cells.at[RECEIVED], 0, 0):
        cells.written(RECEIVED)
        return
    fast = _fast(parameters)
    if fast is not None:
        kernel, positions, gradients = fast
        found = kernel.norms(gradients, Sizes(gradients))
        cells.put(RECEIVED, spread(found, positions, len(parameters)))
        return
    positions, gradients = _gradients_of(parameters)
    cells.put(RECEIVED, spread(norms(gradients), positions, len(parameters)))


def _gradients_of(parameters: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
    """Positions of the parameters that have a measurable gradient, and those gradients, dense."""
    positions: list[int] = []
    gradients: list[Tensor] = []
    for position, parameter in enumerate(parameters):
        gradient = values_of(parameter.grad) if measurable(parameter.grad) else None  # type: ignore[arg-type]
        if gradient is not None:
            positions.append(position)
            gradients.append(gradient)
    return positions, gradients


def _fast(parameters: Sequence[Tensor]) -> tuple[Kernel, list[int], list[Tensor]] | None:
    """Kernel, positions and gradients, when the kernel can read every gradient there is."""
    kernel = load()
    if kernel is None:
        return None
    positions: list[int] = []
    gradients: list[Tensor] = []
    for position, parameter in enumerate(parameters):
        gradient = parameter.grad
        if gradient is not None:
            if not fits(gradient):
                return None
            positions.append(position)
            gradients.append(gradient)
    return kernel, positions, gradients
