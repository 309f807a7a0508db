"""tanh or sigmoid units that sit at their bounds.

Statistic: share of values with |tanh| > 0.97, or a sigmoid below 0.015 or above 0.985, in hidden
activations, over eight consecutive steps; without the structure document the series
``activation_saturated``. Output activations are left out, and so are those of a model whose output
another one gets in turn with data (a GAN's generator), and gates of fused recurrent kernels.
Threshold: 0.5, or 0.8 of the very first values, is a warning, 0.35 a note.
Source: SageMaker Debugger SaturatedActivation (its ±9.4999 is far too lax), TheDeepChecker (ρ_B).
False alarms: binary codes and attention gates that are meant to saturate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.drawing import as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "saturated_activation"


@register(CODE, share=0.5, start=0.8, note=0.35)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    rows = [r for r in run.part("activations") or () if r["function"] in ("tanh", "sigmoid")]
    if not rows:
        yield from _from_series(run, limits)
        return
    worst = max(rows, key=_share)
    share_of, share = _share, _share(worst)
    if share <= limits["share"]:
        # What has come loose since is still worth knowing: the start was lost.
        worst = max(rows, key=_share_at_start)
        if _share_at_start(worst) > limits["start"]:
            share_of, share = _share_at_start, _share_at_start(worst)
    if share <= limits["note"]:
        return
    at_start = _share_at_start(worst)
    first = 0 if at_start > limits["share"] else int(worst["first_step"])
    yield _finding(
        worst["module"],
        worst["function"],
        share,
        share > limits["share"],
        Evidence(
            statistic="share of values at the bounds",
            value=share,
            threshold=limits["share"],
            quantity="activation_saturated",
            subject=worst["module"] or "",
            first=first,
            last=int(worst["last_step"]),
            drawing=as_bars(
                [(row["module"] or "input", share_of(row)) for row in rows],
                "share of values at the bounds, after each module",
                marked=(worst["module"] or "input",),
            ),
        ),
    )


def _share(row: dict[str, Any]) -> float:
    return float(row["saturated"] or 0)


def _share_at_start(row: dict[str, Any]) -> float:
    return float((row.get("at_start") or {}).get("saturated") or 0)


def _from_series(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    if run.part("operations"):
        return  # the structure was seen, and no hidden tanh or sigmoid is in it
    for module in run.modules[:-1]:
        curve = run.series("activation_saturated", module["path"])
        share = curve.median(0.0)
        if len(curve) >= 3 and share > limits["share"]:
            yield _finding(
                module["path"], module["type"].lower(), share, True,
                Evidence(statistic="share of values at the bounds", value=share,
                         threshold=limits["share"], quantity="activation_saturated",
                         subject=module["path"], last=run.last_step),
            )  # fmt: skip
            return


def _finding(
    module: str | None, function: str, share: float, serious: bool, evidence: Evidence
) -> Finding:
    place = f"module {module}" if module else "the input"
    return Finding(
        code=CODE,
        level="warning" if serious else "note",
        title=f"{share:.0%} of the {function} values after {place} are at the bounds.",
        confidence=min(0.5 + 0.45 * share, 0.95) if serious else 0.4,
        module=module,
        op=function,
        step=evidence.first,
        evidence=(evidence,),
        explanation=(
            f"Near its bounds {function} is flat: its derivative is close to zero, so almost no "
            "gradient passes through and the modules before it stop learning."
        ),
        reference="Glorot & Bengio 2010; SageMaker Debugger SaturatedActivation",
        remedies=remedies(CODE),
    )
