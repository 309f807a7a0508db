"""Two linear modules follow each other with nothing in between.

Statistic: in the autograd graph, a matrix product or convolution whose input comes, through views,
dropout and batch normalisation only, from another one. Exact.
Source: NeuraLint, UMLAUT (both static, Keras).
False alarms: a factorised product with a narrow middle (low rank, linear bottleneck, LoRA) is only
a note, depthwise-separable convolutions are left out; purely linear models are told as a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "missing_activation"


@register(CODE)
def check(run: Observations, _limits: Thresholds) -> Iterator[Finding]:
    pairs = list(run.part("linear_pairs") or ())
    wide = [pair for pair in pairs if not _is_narrow(pair["widths"])]
    for pair in (wide or pairs)[:3]:
        yield Finding(
            code=CODE,
            level="warning" if wide else "note",
            title=f"{pair['first']} feeds {pair['second']} without an activation in between.",
            confidence=0.85 if wide else 0.35,
            module=pair["second"],
            evidence=(
                Evidence(
                    statistic="linear modules directly after another", value=float(len(pairs))
                ),
            ),
            explanation=(
                "Two linear maps in a row are one linear map: the second module adds parameters "
                "but no expressive power."
                + ("" if wide else " With a narrow middle this may be a factorisation on purpose.")
            ),
            reference="NeuraLint (Nikanjam et al. 2021); UMLAUT (Schoop et al. 2021)",
            remedies=remedies(CODE),
        )


def _is_narrow(widths: list[Any]) -> bool:
    """Whether the middle is narrower than both ends."""
    return len(widths) == 3 and widths[1] < min(widths[0], widths[2])
