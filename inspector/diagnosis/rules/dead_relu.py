"""ReLU units that never fire.

Statistic: share of a ReLU's units (channels of images) that were zero for every sample of eight
consecutive steps, read from what autograd saved, so functional calls count too. Without the
structure document: share of exact zeros of a ReLU module over its last measurements.
Threshold: 0.5 (0.7 where the loss falls well) is a warning, 0.9 critical, 0.3 a
note; from 100 samples and 8 units on.
Source: SageMaker Debugger DeadRelu (a unit active in < 1 % of samples, over half the layer);
TheDeepChecker.
False alarms: sparse features on purpose; very small batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Curve, Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.events import Level

CODE = "dead_relu"


@register(CODE, dead=0.5, learning=0.7, note=0.3, zeros=0.98)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    rows = [
        row
        for row in run.part("activations") or ()
        if row["function"] == "relu" and row["units"] >= 8 and row["samples"] >= 100
    ]
    if rows:
        worst = max(rows, key=lambda row: float(row["dead"] or 0))
        dead = float(worst["dead"] or 0)
        at_start = (worst.get("at_start") or {}).get("dead") or 0.0
        if dead > limits["note"]:
            since = worst.get("dead_since")
            seen = int(worst["first_step"] if since is None else since)
            step = 0 if at_start > limits["dead"] else seen
            limit = limits["learning" if run.learning else "dead"]
            serious = dead > limit
            evidence = Evidence(
                statistic="share of units that never fired",
                value=dead,
                threshold=limit if serious else limits["note"],
                quantity="activation_zeros",
                subject=worst["module"] or "",
                first=int(worst["first_step"]),
                last=int(worst["last_step"]),
                drawing=as_bars(
                    [
                        (row["module"] or "input", float(row["dead"] or 0))
                        for row in sorted(
                            rows, key=lambda row: run.call_order.get(row["module"] or "", 0)
                        )
                    ],
                    "share of units that never fire, after each module",
                    marked=(worst["module"] or "input",),
                ),
            )
            yield _finding(worst["module"], dead, serious, step, evidence)
        return
    for module in run.modules:
        zeros = run.series("activation_zeros", module["path"])
        if module["type"] in ("ReLU", "ReLU6") and len(zeros) >= 3:
            share = zeros.between(int(zeros.steps[-3]), run.last_step).median(0.0)
            if share > limits["zeros"]:
                evidence = Evidence(
                    statistic="share of zeros",
                    value=share,
                    threshold=limits["zeros"],
                    quantity="activation_zeros",
                    subject=module["path"],
                    last=run.last_step,
                )
                yield _finding(
                    module["path"], share, True, _began(zeros, limits["zeros"]), evidence
                )
                return


def _began(zeros: Curve, limit: float) -> int:
    """The measurement after the last one that was within the limit; 0 where all were above."""
    within = np.flatnonzero(zeros.values <= limit)
    return int(zeros.steps[min(within[-1] + 1, len(zeros) - 1)]) if len(within) else 0


def _finding(
    module: str | None, dead: float, serious: bool, step: int, evidence: Evidence
) -> Finding:
    level: Level = "note" if not serious else "critical" if dead > 0.9 else "warning"
    place = f"module {module}" if module else "the input"
    return Finding(
        code=CODE,
        level=level,
        title=f"{dead:.0%} of the ReLU units after {place} never fire.",
        confidence=0.4 if not serious else min(0.55 + 0.4 * dead, 0.95),
        module=module,
        op="relu",
        step=step,
        evidence=(evidence,),
        explanation=(
            "A unit whose input is negative for every sample outputs zero and gets no gradient, "
            "so it never comes back. One large step, or a strongly negative bias, is enough."
        ),
        reference="SageMaker Debugger DeadRelu; Lu et al. 2019, arXiv:1903.06733",
        remedies=remedies(CODE),
    )
