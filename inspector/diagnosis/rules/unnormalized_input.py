"""What the first module with parameters receives is far from unit size.

Statistic: root mean square of the values that reach the first operation with parameters (so a
normalisation inside ``forward`` counts), and the largest over the median standard deviation of
the features. Standardised data has 1, pixels in [0, 1] about 0.4.
Later: the same size in a burst of steps, where it is five times that of the burst before.
Threshold: 10 is a warning, 5 a note; below 0.01 a warning; features: 100.
Source: LeCun et al. 1998, Efficient BackProp; TheDeepChecker; UMLAUT's fixed range [−1, 1]
alarms on standardised data and is not used.
False alarms: one-hot or count features (small, harmless); models that start with a normalisation
are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from inspector.diagnosis.drawing import Drawing, as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.events import Level
from inspector.numerals import short

CODE = "unnormalized_input"
_JUMP = 5.0
_NORMALISES = ("NativeBatchNorm", "CudnnBatchNorm", "NativeLayerNorm", "NativeGroupNorm")


@register(CODE, large=10.0, note=5.0, small=0.01, features=100.0)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    facts = run.part("inputs")
    rms = facts.get("largest_rms") or facts.get("rms")
    if rms is None or facts.get("operation") in (*_NORMALISES, "Embedding"):
        return
    ratio = facts.get("feature_std_ratio") or 0.0
    later = _since(run, limits)
    if later is not None:
        yield later
    elif rms > limits["note"]:
        level: Level = "warning" if rms > limits["large"] else "note"
        confidence = min(0.6 + 0.15 * math.log10(rms / limits["large"] + 1), 0.95)
        yield _finding(
            run,
            level,
            confidence if level == "warning" else 0.4,
            f"Inputs are about {short(rms, 3)} in size; networks expect about 1.",
            Evidence(statistic="root mean square of the inputs", value=rms,
                     threshold=limits["large" if level == "warning" else "note"],
                     drawing=_sizes(rms)),
        )  # fmt: skip
    elif 0 < rms < limits["small"]:
        yield _finding(
            run, "warning", 0.6, f"Inputs are only about {short(rms, 3)} in size.",
            Evidence(statistic="root mean square of the inputs", value=rms,
                     threshold=limits["small"], side="below",
                     drawing=_sizes(rms)),
        )  # fmt: skip
    elif ratio > limits["features"]:
        yield _finding(
            run, "warning", 0.6, "Some input features are much larger than the others.",
            Evidence(statistic="largest over median standard deviation of the features",
                     value=ratio, threshold=limits["features"],
                     drawing=as_bars([("largest feature", ratio), ("median feature", 1.0)],
                                     "standard deviation over the median one", log=True,
                                     marked=("largest feature",))),
        )  # fmt: skip


def _since(run: Observations, limits: Thresholds) -> Finding | None:
    """Inputs that were of usual size before a step, and are not after it."""
    rows = list(run.part("input_bursts") or ())
    late = len(rows)
    while late and (rows[late - 1]["rms"] or 0.0) > limits["large"]:
        late -= 1
    if late in (0, len(rows)) or rows[late]["rms"] < _JUMP * rows[late - 1]["rms"]:
        return None
    before, now = rows[late - 1], rows[-1]
    step = run.began(before["last"], rows[late]["first"])
    return _finding(
        run, "warning", 0.93,
        f"Inputs are about {short(now['rms'], 3)} in size since step {step}, "
        f"{short(before['rms'], 3)} before.",
        Evidence(
            statistic="root mean square of the inputs",
            value=now["rms"],
            threshold=limits["large"],
            first=int(before["last"]),
            last=int(now["last"]),
            drawing=as_bars(
                [(f"steps {row['first']}–{row['last']}", row["rms"]) for row in rows],
                "root mean square of the inputs",
                (limits["large"], f"limit: {short(limits['large'], 6)}"),
                log=True,
                marked=[f"steps {row['first']}–{row['last']}" for row in rows[late:]],
            ),
        ),
        step,
    )  # fmt: skip


def _sizes(rms: float) -> Drawing:
    return as_bars(
        [("these inputs", rms), ("standardised", 1.0)],
        "root mean square",
        log=True,
        marked=("these inputs",),
    )


def _finding(
    run: Observations,
    level: Level,
    confidence: float,
    title: str,
    evidence: Evidence,
    step: int = 0,
) -> Finding:
    first = run.modules[0]["path"] if run.modules else None
    if step and run.weights:
        first = run.weights[0]["module"]
    return Finding(
        code=CODE,
        level=level,
        title=title,
        confidence=confidence,
        module=first,
        step=step,
        evidence=(evidence,),
        explanation=(
            "Gradients of the first module are proportional to its inputs. Large or unequal "
            "inputs make the loss surface steep in some directions and flat in others, so that "
            "no learning rate suits all; ReLUs die and tanh saturates."
        ),
        reference="LeCun et al. 1998, Efficient BackProp",
        remedies=remedies(CODE),
    )
