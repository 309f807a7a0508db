"""Gradient statistics of all parameters at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from inspector.capture.kernel import Kernel, Sizes, fits, load
from inspector.capture.reductions import (
    largest,
    measurable,
    nonfinite_counts,
    norms,
    spread,
    values_of,
)
from inspector.capture.transfer import Scalar


@dataclass(slots=True)
class GradientStatistics:
    """One list per statistic, one entry per parameter; ``ABSENT`` where there is no gradient.

    Attributes:
        norm: L2 norms, as found (scaled if a GradScaler scaled the loss).
        largest: largest absolute values.
        nonfinite: numbers of NaN and infinite values.
    """

    norm: list[Scalar] = field(default_factory=list)
    largest: list[Scalar] = field(default_factory=list)
    nonfinite: list[Scalar] = field(default_factory=list)


def gradients_of(parameters: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
    """Positions of the parameters that have a measurable gradient, and those gradients, dense."""
    positions: list[int] = []
    gradients: list[Tensor] = []
    for position, parameter in enumerate(parameters):
        gradient = values_of(parameter.grad) if measurable(parameter.grad) else None  # type: ignore[arg-type]
        if gradient is not None:
            positions.append(position)
            gradients.append(gradient)
    return positions, gradients


def measure_gradients(parameters: Sequence[Tensor]) -> GradientStatistics:
    """Norm, largest value and non-finite count of every gradient as it is now."""
    size = len(parameters)
    fast = _fast(parameters)
    if fast is not None:
        kernel, positions, gradients = fast
        found = kernel.gradients(gradients, Sizes(gradients))
        return GradientStatistics(*(spread(part, positions, size) for part in found))
    positions, gradients = gradients_of(parameters)
    most = [largest(gradient) for gradient in gradients]
    counts = nonfinite_counts(gradients, most)
    return GradientStatistics(
        norm=spread(norms(gradients), positions, size),
        largest=spread(most, positions, size),
        nonfinite=spread(counts, positions, size),
    )


def measure_norms(parameters: Sequence[Tensor]) -> list[Scalar]:
    """L2 norm of every gradient as it is now."""
    fast = _fast(parameters)
    if fast is not None:
        kernel, positions, gradients = fast
        return spread(kernel.norms(gradients, Sizes(gradients)), positions, len(parameters))
    positions, gradients = gradients_of(parameters)
    return spread(norms(gradients), positions, len(parameters))


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
