"""Some classes are much rarer than others.

Statistic: largest over smallest number of labels of the classes that occur (over the median with
more than 20 classes), from the data set where it can be read, else from the batches.
Threshold: 10, from 100 labels on.
Source: SageMaker Debugger's ClassImbalance (10 over 500 samples).
False alarms: natural imbalance that does not matter for the goal; sequences and pixels (only a
note there); weighted losses and samplers (a note).
"""

from __future__ import annotations

from collections.abc import Iterator

from inspector.diagnosis.drawing import Drawing, as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "class_imbalance"


@register(CODE, ratio=10.0, samples=100)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    counts = sorted(count for count in run.class_counts if count > 0)
    if len(counts) < 2 or sum(counts) < limits["samples"]:
        return
    most = counts[len(counts) // 2] if len(counts) > 20 else counts[-1]
    ratio = most / counts[0]
    expected = sum(counts) / len(counts)
    if ratio <= limits["ratio"] or expected < limits["ratio"]:
        return
    shape = run.targets.get("shape", [])
    kind = str(run.targets.get("dtype", ""))
    if kind.startswith(("float", "bfloat")) and not run.targets.get("one_hot") and len(counts) > 2:
        return  # amounts that happen to be whole numbers
    dense = len(shape) > 1 and not run.targets.get("one_hot") and shape[1:] != [1]
    handled = run.part("loss").get("weighted") or run.part("order").get("weighted")
    rarest = run.class_counts.index(counts[0])
    note = bool(dense or handled)
    yield Finding(
        code=CODE,
        level="note" if note else "warning",
        title=f"Class {rarest} is {ratio:.0f} times rarer than the most frequent one.",
        confidence=0.4 if note else min(0.7 + 0.05 * ratio / limits["ratio"], 0.9),
        evidence=(
            Evidence(
                statistic="largest over smallest number of labels of a class",
                value=ratio,
                threshold=limits["ratio"],
                last=run.last_step,
                drawing=_by_class(run.class_counts, rarest, most / limits["ratio"]),
            ),
        ),
        explanation=(
            "The loss is a mean over samples: a model that never answers with a rare class loses "
            "little. Accuracy hides it; look at the accuracy of each class."
        ),
        reference="SageMaker Debugger ClassImbalance; Buda et al. 2018, arXiv:1710.05381",
        remedies=remedies(CODE),
    )


def _by_class(counts: list[int], rarest: int, least: float) -> Drawing:
    most = sorted(range(len(counts)), key=lambda at: -counts[at])
    shown = sorted({*most[:14], rarest, *most[-6:]})
    return as_bars(
        [(f"class {at}", float(counts[at])) for at in shown],
        "samples of each class",
        (least, f"limit {least:,.0f}"),
        marked=(f"class {rarest}",),
    )
