"""The outputs are normalised before a loss that normalises them itself.

Statistic: in the loss's autograd graph, ``LogSoftmaxBackward`` fed by ``SoftmaxBackward`` (or
``SigmoidBackward``, ``TanhBackward``), ``BinaryCrossEntropyWithLogits`` fed by ``Sigmoid``;
else outputs that are ≥ 0 and sum to one in every row (±1e-3) going into cross-entropy; a ReLU
between the scores and ``LogSoftmaxBackward``. Exact.
Source: asked for in pytorch #55902; NeuraLint (static, Keras).
False alarms: ``log_softmax`` twice changes nothing, hence only a note. A temperature-scaled
softmax as scores on purpose (some distillation losses) would be one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from inspector.diagnosis.drawing import over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "double_softmax"


class _Mistake(NamedTuple):
    """What is said about one.

    Attributes:
        limited: the loss cannot come near zero this way.
    """

    explanation: str
    advice: tuple[Remedy, ...] = remedies(CODE)
    heading: str = ""
    limited: bool = True


_LIMITED = (
    "{loss} itself. Fed with probabilities, its scores differ by at most 1, so the loss cannot "
    "come near zero and gradients are small: training is slow and ends too early."
)
_SOFTMAX_TWICE = _Mistake(_LIMITED.format(loss="Cross-entropy applies log_softmax"))
_SIGMOID_TWICE = _Mistake(
    _LIMITED.format(loss="Binary cross-entropy with logits applies the sigmoid"),
    (
        Remedy(
            text="Remove the last activation: the loss takes raw scores (logits).",
            code="loss = F.binary_cross_entropy_with_logits(scores, y)  # no sigmoid before",
        ),
    ),
)
_RECTIFIED = _Mistake(
    "Scores of classes may be negative: that is how a class is ruled out. After a ReLU the least "
    "is zero, and a class whose score is below zero for every sample gets no gradient and is never "
    "predicted again.",
    heading="ReLU before the loss",
    limited=False,
)


@register(CODE)
def check(run: Observations, _limits: Thresholds) -> Iterator[Finding]:
    loss = run.part("loss")
    doubled = str(loss.get("doubled") or "")
    inner, _, outer = doubled.partition(">")
    last = run.modules[-1]["path"] if run.modules else None
    if inner == "log_softmax":
        yield _finding(
            run, "note", 0.4, "The loss takes log_softmax of outputs that are log_softmax already.",
            "the loss's graph has log_softmax twice", last,
        )  # fmt: skip
    elif doubled:
        what = "probabilities" if inner == "softmax" else f"outputs squashed by {inner}"
        yield _finding(
            run,
            "critical" if inner in ("softmax", "sigmoid") else "warning",
            0.97,
            f"The loss expects raw scores but receives {what}: {inner} is followed by {outer}.",
            f"the loss's graph has {inner} directly before {outer}",
            last,
            _SOFTMAX_TWICE if outer == "log_softmax" else _SIGMOID_TWICE,
        )
    elif run.part("loss").get("nll_input", [])[:2] == ["LogSoftmax", "Relu"]:
        yield _finding(
            run, "warning", 0.85,
            "The loss expects raw scores, but they pass through a ReLU: none is below zero.",
            "the loss's graph has relu directly before log_softmax", last, _RECTIFIED,
        )  # fmt: skip
    elif _sums_to_one(run):
        yield _finding(
            run, "warning", 0.9, "Cross-entropy receives outputs that already sum to one.",
            "every row of the outputs is ≥ 0 and sums to one", last,
        )  # fmt: skip


def _sums_to_one(run: Observations) -> bool:
    outputs = run.part("loss", "outputs")
    logits = run.part("loss").get("nll_input", ["LogSoftmax"])[:1] == ["LogSoftmax"]
    return bool(outputs.get("rows_sum_to_one")) and run.uses_cross_entropy and logits


def _lowest(run: Observations) -> float | None:
    """The lowest cross-entropy that scores between 0 and 1 can reach.

    ln(1 + (C - 1)/e) for C classes; ln(1 + 1/e) for a 1 and ln 2 for a 0 of one output.
    """
    columns = int(run.part("loss", "outputs").get("columns") or 0)
    counts = run.class_counts
    if columns == 1 and len(counts) == 2 and any(counts):
        zero, one = counts
        return (one * math.log(1 + 1 / math.e) + zero * math.log(2)) / (zero + one)
    if not run.uses_cross_entropy or columns < 2:
        return None
    return math.log(1 + (columns - 1) / math.e)


def _finding(
    run: Observations,
    level: str,
    confidence: float,
    title: str,
    fact: str,
    module: str | None,
    mistake: _Mistake = _SOFTMAX_TWICE,
) -> Finding:
    lowest = _lowest(run) if mistake.limited else None
    since = run.part("loss").get("doubled_since")
    step = run.began(*since) if since else 0
    limits = [(lowest, f"no lower than {lowest:.2f} this way")] if lowest else []
    drawing = over_steps(run.loss.steps, run.loss.values, "loss", *limits, (0.0, "zero"))
    return Finding(
        code=CODE,
        level=level,  # type: ignore[arg-type]
        title=f"{title.rstrip('.')}, since step {step}." if step else title,
        confidence=confidence,
        module=module,
        step=step,
        evidence=(Evidence(statistic=fact, quantity="loss", last=run.last_step, drawing=drawing),),
        heading=mistake.heading,
        explanation=mistake.explanation,
        reference="PyTorch: CrossEntropyLoss takes logits; pytorch issue 55902",
        remedies=mistake.advice,
    )
