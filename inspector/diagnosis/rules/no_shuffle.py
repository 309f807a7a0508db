"""Batches come in a fixed, sorted order.

Statistic: how much of the targets' spread lies between batches instead of inside them, corrected
for chance: 0 for random batches, 1 when each batch holds one class. Beside it the loader's
sampler, or batches that return in the same order.
Without targets: the variance of the batches' mean inputs over that expected of random batches.
Where a model is called several times a step, batches are compared with those at the same place, and
the place where they differ least counts; what a watched model has made is no data.
Threshold: 0.5, or 3 for the inputs, is a warning; a fixed order of mixed batches is a note.
Source: own (an F statistic of batches); Bengio 2012, Practical recommendations, on shuffling.
False alarms: data that must stay in order (streams, one long sequence cut into pieces).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.drawing import Drawing, as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "no_shuffle"


@register(CODE, between=0.5, inputs=3.0, in_order=0.8)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    order = run.part("order")
    measured = [run.part("targets").get("sorted")]
    if order.get("order") == "sequential":
        measured.append(run.part("dataset").get("sorted"))
    between = max((value for value in measured if value is not None), default=0.0)
    if between > limits["between"]:
        yield _finding(
            "warning",
            min(0.7 + 0.25 * between, 0.95),
            "Batches are sorted: each holds few of the targets that occur.",
            Evidence(
                statistic="share of the targets' spread that lies between batches",
                value=between,
                threshold=limits["between"],
                quantity="loss",
                last=run.last_step,
                drawing=_beside_chance(
                    "spread of the targets between batches, as a share", between, 0.0
                ),
            ),
        )
    elif (apart := order.get("inputs_between") or 0.0) > limits["inputs"]:
        sequence = len(run.part("inputs").get("raw_shape", ())) == 3
        yield _finding(
            "note" if sequence else "warning",
            0.45 if sequence else 0.75,
            "Batches differ from each other far more than chance allows.",
            Evidence(
                statistic="variance between batches over that expected by chance",
                value=apart,
                threshold=limits["inputs"],
                quantity="loss",
                last=run.last_step,
                drawing=_beside_chance("variance between batches over chance", apart, 1.0),
            ),
        )
    elif _fixed_order(order, limits["in_order"]):
        yield _finding(
            "note",
            0.35,
            "The same batches return in the same order in every epoch.",
            Evidence(statistic="the order of batches never changes", last=run.last_step),
        )


def _beside_chance(axis: str, value: float, shuffled: float) -> Drawing:
    return as_bars(
        [("this run", value), ("shuffled batches", shuffled)], axis, marked=("this run",)
    )


def _fixed_order(order: dict[str, Any], share: float) -> bool:
    if order.get("order") == "sequential":
        return int(order.get("batches") or 0) > 1
    seen, repeated = int(order.get("batches_seen", 0)), int(order.get("repeated", 0))
    followed = int(order.get("in_first_order", 0))
    return seen >= 3 and repeated >= 3 and followed >= share * repeated


def _finding(level: str, confidence: float, title: str, evidence: Evidence) -> Finding:
    return Finding(
        code=CODE,
        level=level,  # type: ignore[arg-type]
        title=title,
        confidence=confidence,
        evidence=(evidence,),
        explanation=(
            "Stochastic gradient descent assumes that each batch resembles the whole. With sorted "
            "batches the model follows one class, then forgets it for the next; the loss jumps at "
            "every change and batch statistics are wrong."
        ),
        reference="Bengio 2012, Practical recommendations for gradient-based training",
        remedies=remedies(CODE),
    )
