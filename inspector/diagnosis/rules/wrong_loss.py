"""The loss does not fit the task.

Statistics, all from the loss's graph, its inputs and its targets: (a) negative log-likelihood of
outputs that are no log-probabilities (values above 0 without log_softmax before); (b)
cross-entropy with one output column, which is always 0; (c) cross-entropy with real-valued
targets that are no distributions; (d) binary cross-entropy with targets outside [0, 1]; (e) a
regression loss on class numbers 0, 1, 2, … or on one-hot rows; (f) a loss with a negative sign; (g)
one that starts below zero and falls to a thousand times that.
Source: NeuraLint, UMLAUT, DeepFD's fault list (static or learned there; read from the graph here).
False alarms: the Brier score (mean squared error of probabilities) is a choice, as is least-squares
GAN: 0/1 targets with one column are only a note; counts that are regressed look like classes;
(g) a critic of which nothing bounds the outputs, which is in trouble of the same kind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.drawing import Drawing, as_bars, over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.events import Level
from inspector.numerals import short

CODE = "wrong_loss"
_REGRESSION = {"mse", "smooth_l1", "huber"}
_CROSS_ENTROPY = Remedy(
    text="Use cross-entropy on raw scores, with class numbers as labels.",
    code="loss = F.cross_entropy(scores, labels)  # scores: (N, C), labels: (N,) int64",
)
_SIGN = Remedy(
    text="Look for a missing or an additional minus sign.",
    code="loss = -log_probabilities.mean()",
)
_ENDLESS = (
    "A loss has a least value: that of a perfect answer. One that falls without end rewards larger "
    "and larger outputs, as a log-likelihood whose minus sign is missing does: training makes the "
    "answers worse, weights grow, and gradients with them."
)
_REGRESS = Remedy(text="Use a regression loss.", code="loss = F.mse_loss(outputs, targets)")


@register(CODE, most_classes=30, share=0.01, endless=1000.0)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    loss = run.part("loss")
    losses: dict[str, int] = loss.get("losses") or {}
    outputs: dict[str, Any] = loss.get("outputs") or {}
    made = (
        _not_log_probabilities(run, losses, outputs)
        or _one_column(run, outputs)
        or _no_distribution(run, losses)
        or _outside_unit(run, losses)
        or _binary_of_many(run, losses)
        or _classes_regressed(run, losses, outputs, limits)
    )
    if made:
        yield made
    if losses and (all(sign < 0 for sign in losses.values()) or _below_zero(run, losses)):
        yield _finding(
            "warning", 0.88, "The loss enters with a negative sign: training makes it worse.",
            "the loss function is negated in the graph", Remedy(text="Remove the minus sign."),
            _loss_and_zero(run, "no lower without the minus sign"),
        )  # fmt: skip
    elif (
        not made
        and run.first_loss < 0
        and _lowest(run) < limits["endless"] * min(run.first_loss, -1.0)
    ):
        yield dataclasses.replace(
            _finding(
                "warning", 0.8,
                f"The loss falls below zero without end, to {short(_lowest(run), 2)}.",
                "lowest loss over the first", _SIGN,
                over_steps(run.loss.steps, run.loss.values / run.first_loss,
                           "loss over its first value", log=True),
                value=_lowest(run) / run.first_loss, limit=limits["endless"],
                last=run.last_step,
            ),
            explanation=_ENDLESS,
        )  # fmt: skip


def _lowest(run: Observations) -> float:
    return float(run.loss.finite.values.min()) if len(run.loss.finite) else 0.0


def _below_zero(run: Observations, losses: dict[str, int]) -> bool:
    """A loss that cannot be negative is: the factor in between could not be read."""
    before = (run.part("loss").get("nll_input") or ["LogSoftmax"])[0]
    alone = len(losses) == 1 and set(losses) <= {"nll", "mse", "smooth_l1", "huber"}
    return alone and before == "LogSoftmax" and run.first_loss < 0


def _not_log_probabilities(
    run: Observations, losses: dict[str, int], outputs: dict[str, Any]
) -> Finding | None:
    before = (run.part("loss").get("nll_input") or [""])[0]
    if "nll" not in losses or before in ("LogSoftmax", "Log", "LogSigmoid"):
        return None
    if before == "Softmax" or (outputs.get("max") or 0) > 1e-3:
        what = "probabilities" if before == "Softmax" else "raw scores"
        return _finding(
            "critical", 0.96,
            f"Negative log-likelihood receives {what} instead of log-probabilities.",
            f"the loss's input comes from {before or 'no log_softmax'}", _CROSS_ENTROPY,
            _loss_and_zero(run, "no lower with log-probabilities"),
        )  # fmt: skip
    return None


def _one_column(run: Observations, outputs: dict[str, Any]) -> Finding | None:
    if not run.uses_cross_entropy or outputs.get("columns") != 1:
        return None
    if len(outputs.get("shape", ())) != 2:
        return None
    return _finding(
        "critical", 0.97, "Cross-entropy over one column is always zero: nothing is learned.",
        "the outputs have one column",
        Remedy(text="For two classes with one output use binary cross-entropy.",
               code="loss = F.binary_cross_entropy_with_logits(score.squeeze(1), labels.float())"),
        over_steps(run.loss.steps, run.loss.values, "loss", (math.log(2), "guessing: 0.69")),
    )  # fmt: skip


def _no_distribution(run: Observations, losses: dict[str, int]) -> Finding | None:
    targets = run.targets
    if not run.uses_cross_entropy or "nll" in losses or targets.get("rows_sum_to_one") is not False:
        return None
    return _finding(
        "critical", 0.9, "Cross-entropy receives real-valued targets that are no distributions.",
        "rows of the targets do not sum to one", _REGRESS, _loss_and_zero(run),
    )  # fmt: skip


def _outside_unit(run: Observations, losses: dict[str, int]) -> Finding | None:
    low, high = run.targets.get("min"), run.targets.get("max")
    if not {"bce", "bce_with_logits"} & set(losses) or low is None or high is None:
        return None
    if low >= -1e-6 and high <= 1 + 1e-6:
        return None
    return _finding(
        "critical", 0.95,
        f"Binary cross-entropy receives targets from {short(low, 3)} to {short(high, 3)}, "
        "outside [0, 1].",
        "targets outside [0, 1]", _REGRESS,
        as_bars([("smallest target", low), ("largest target", high)], "value",
                (0.0, "least: 0"), (1.0, "most: 1"),
                marked=["smallest target"] * (low < 0) + ["largest target"] * (high > 1)),
    )  # fmt: skip


def _binary_of_many(run: Observations, losses: dict[str, int]) -> Finding | None:
    several = run.targets.get("one_hot") and len(run.class_counts) > 2
    if not {"bce", "bce_with_logits"} & set(losses) or not several:
        return None
    return _finding(
        "note", 0.42, "Binary cross-entropy on one-hot rows: classes do not compete.",
        "targets are one-hot rows", _CROSS_ENTROPY, _numbers(run),
    )  # fmt: skip


def _classes_regressed(
    run: Observations, losses: dict[str, int], outputs: dict[str, Any], limits: Thresholds
) -> Finding | None:
    name = set(losses) | {str(run.part("loss").get("function"))}
    if not (_REGRESSION & set(losses) or "L1Loss" in name or "l1_loss" in name):
        return None
    targets, counts = run.targets, run.class_counts
    if targets.get("one_hot"):
        return _finding(
            "warning", 0.75, "A regression loss is used on one-hot classes.",
            "targets are one-hot rows", _CROSS_ENTROPY, _numbers(run),
        )  # fmt: skip
    classes = [count for count in counts if count]
    integer = str(targets.get("dtype", "")).startswith(("int", "uint"))
    chances = (run.part("loss").get("mse_input") or [""])[0] == "Softmax"
    if chances or (integer and len(classes) > 2 and outputs.get("columns") == len(counts)):
        return _finding(
            "warning", 0.72, "A regression loss is used to tell classes apart.",
            "the outputs are probabilities of classes" if chances else "one output for each class",
            _CROSS_ENTROPY, _numbers(run),
        )  # fmt: skip
    if outputs.get("columns", 1) != 1 or not classes or len(classes) < len(counts):
        return None
    usual = min(classes) >= limits["share"] * sum(classes)
    if len(classes) == 2:
        return _finding(
            "note", 0.45, "A regression loss is used on 0/1 targets.",
            "targets are 0 and 1", _CROSS_ENTROPY, _numbers(run),
        )  # fmt: skip
    if 3 <= len(classes) <= limits["most_classes"] and usual:
        return _finding(
            "warning", 0.75, "Class numbers are regressed as if their order and distance mattered.",
            f"targets are the numbers 0 to {len(classes) - 1}", _CROSS_ENTROPY, _numbers(run),
        )  # fmt: skip
    return None


def _loss_and_zero(run: Observations, label: str = "zero") -> Drawing:
    return over_steps(run.loss.steps, run.loss.values, "loss", (0.0, label))


def _numbers(run: Observations) -> Drawing:
    """The targets as what they are: a few numbers that stand for classes."""
    return as_bars(
        [(f"target {at}", float(count)) for at, count in enumerate(run.class_counts[:30])],
        "how often each target occurs",
    )


def _finding(
    level: Level,
    confidence: float,
    title: str,
    fact: str,
    remedy: Remedy,
    drawing: Drawing,
    *,
    value: float | None = None,
    limit: float | None = None,
    last: int = 0,
) -> Finding:
    return Finding(
        code=CODE,
        level=level,
        title=title,
        confidence=confidence,
        evidence=(
            Evidence(
                statistic=fact,
                value=value,
                threshold=limit,
                quantity="loss",
                last=last,
                drawing=drawing,
            ),
        ),
        explanation=(
            "The loss says what the outputs mean: cross-entropy reads scores of classes, mean "
            "squared error reads amounts, negative log-likelihood reads log-probabilities. With "
            "another meaning the number still falls, but towards something else."
        ),
        reference="NeuraLint (Nikanjam et al. 2021); DeepFD (Cao et al. 2022)",
        remedies=(remedy,),
    )
