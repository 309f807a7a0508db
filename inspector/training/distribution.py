"""Targets that are distributions over the classes, such as a teacher's probabilities."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from inspector.errors import DataError
from inspector.numerals import short

_TOLERANCE = 1e-3  # what shares written with three decimals leave


class DistributionKLDiv(nn.KLDivLoss):
    """Kullback–Leibler divergence of the targets from the softmax of scores, mean over the batch.

    Log-probabilities may be given as well: their log-softmax is themselves.
    """

    def __init__(self, reduction: str = "batchmean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        return super().forward(F.log_softmax(input, dim=1), target)


def check_distributions(targets: Tensor, where: str) -> None:
    """Raises DataError for the first row of [n, classes] that is no distribution."""
    wrong = ~((targets >= 0).all(1) & ((targets.sum(1) - 1).abs() <= _TOLERANCE))
    rows = wrong.nonzero()[:, 0]
    if len(rows):
        row = int(rows[0])
        got = (
            f"{short(float(targets[row].min()))} is among them"
            if bool((targets[row] < 0).any())
            else f"they sum to {short(float(targets[row].sum()))}"
        )
        raise DataError(
            f"{where}, row {row}: expected shares of 0 or more that sum to 1, but {got} "
            f"({len(rows):,} such rows); divide each row by its sum, or choose another task."
        )
