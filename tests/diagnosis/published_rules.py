"""Rules of other tools, as far as they are documented, on the numbers that our runs hold.

Thresholds are the published defaults (docs/diagnosis.md names the sources). Where a tool looks
at something a run does not hold, the rule is left out; so this is a comparison of rules on equal
data, not of the tools' own recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from inspector.diagnosis.observations import Observations

Said = list[str]


def sagemaker(run: Observations) -> Said:
    """SageMaker Debugger's built-in rules with their defaults."""
    said: Said = []
    loss = run.loss.values
    first = _sizes(run)
    if run.first_nonfinite_loss is not None:
        said.append("nonfinite")
    if first and min(first) < 1e-7:  # VanishingGradient
        said.append("vanishing_gradient")
    if _dead(run) > 0.5:  # DeadRelu
        said.append("dead_relu")
    if _weight_variance_ratio(run) > 10:  # PoorWeightInitialization
        said.append("poor_initialization")
    ratios = run.update_ratio.finite.values
    if len(ratios) and ratios.max() > 10:  # WeightUpdateRatio
        said.append("lr_too_high")
    if len(ratios) and ratios.min() < 1e-8:
        said.append("lr_too_low")
    if any(loss[i + 10] > loss[i] * 0.999 for i in range(0, len(loss) - 10, 10)):
        said.append("lr_too_low")  # LossNotDecreasing: 0.1 % over 10 steps
    held_out = run.series("val_loss")
    if len(held_out):  # Overfit: ratio 0.1, patience 1
        train = [run.loss.between(s - 9, s).median() for s in held_out.steps.tolist()]
        if any((v - t) / t > 0.1 for v, t in zip(held_out.values, train, strict=True) if t > 0):
            said.append("overfitting")
    counts = [c for c in run.class_counts if c]
    if len(counts) > 1 and max(counts) / min(counts) > 10:  # ClassImbalance
        said.append("class_imbalance")
    if abs(run.part("inputs").get("mean") or 0) > 0.2:  # CheckInputImages
        said.append("unnormalized_input")
    if any(_unchanged(row) for row in run.parameters):  # UnchangedTensor
        said.append("frozen_parameters")
    return said


def autotrainer(run: Observations) -> Said:
    """AUTOTRAINER's detectors: five symptoms, in the order of its own checks."""
    said: Said = []
    sizes = _sizes(run)
    if run.first_nonfinite_loss is not None or (sizes and sizes[0] / max(sizes[-1], 1e-30) > 70):
        said.append("exploding_gradient")
    if sizes and sizes[0] / max(sizes[-1], 1e-30) < 1e-3 and sizes[0] < 1e-4:
        said.append("vanishing_gradient")
    if _silent(run) >= 0.7:
        said.append("dead_relu")
    start, end = run.loss_at_start(), run.loss_at_end()
    values = run.loss.finite.values
    swings = np.abs(np.diff(values)) > 0.03 * max(abs(start), 1e-9)
    if len(values) > 10 and end > 0.9 * start:
        said.append("lr_too_high" if swings.mean() > 0.2 else "lr_too_low")
    accuracy, training = run.series("val_accuracy"), run.series("accuracy")
    if len(accuracy) and len(training):
        gap = training.values[-10:].mean() - accuracy.values[-1]
        if gap >= 0.1:
            said.append("overfitting")
    return said


def the_deep_checker(run: Observations) -> Said:
    """TheDeepChecker's properties, with the thresholds of its settings."""
    said: Said = []
    sizes, ratios = _sizes(run), run.update_ratio.finite.values
    if run.first_nonfinite_loss is not None:
        said.append("nonfinite")
    if any(_f_ratio(row) > 2.70554 for row in run.weights):
        said.append("poor_initialization")
    if run.guessing and abs(run.first_loss / run.guessing - 1) >= 1:
        said.append("poor_initialization")
    if sizes and min(sizes) < 1e-6:
        said.append("vanishing_gradient")
    if sizes and max(sizes) > 1e6:
        said.append("exploding_gradient")
    if _dead(run) > 0.5:
        said.append("dead_relu")
    if _saturated(run) > 0.5:
        said.append("saturated_activation")
    if len(ratios) and float(np.mean(ratios[-10:])) > 0.1:
        said.append("lr_too_high")
    if len(ratios) and float(np.mean(ratios[-10:])) < 1e-4:
        said.append("lr_too_low")
    facts = run.part("inputs")
    low, high = facts.get("min"), facts.get("max")
    mean, std = facts.get("mean"), facts.get("std")
    if None not in (low, high, mean, std):
        unit = low >= -1 and high <= 1
        if not unit and not (abs(mean) < 0.1 and abs(std - 1) < 0.1):
            said.append("unnormalized_input")
    counts = np.array([c for c in run.class_counts if c], dtype=float)
    if len(counts) > 1:
        share = counts / counts.sum()
        entropy = float(-(share * np.log(share)).sum())
        if (math.exp(entropy) - 1) / (len(counts) - 1) < 0.5:
            said.append("class_imbalance")
    values = run.loss.finite.values
    means = [values[i : i + 10].mean() for i in range(0, len(values) - 9, 10)]
    slow = [b > 0.95 * a for a, b in pairwise(means)]
    if any(all(slow[i : i + 4]) for i in range(len(slow) - 3)):
        said.append("lr_too_low")
    return said


def umlaut(run: Observations) -> Said:
    """UMLAUT's heuristics that a run's numbers can answer."""
    said: Said = []
    facts = run.part("inputs")
    if (facts.get("min") or 0) < -1 or (facts.get("max") or 0) > 1:
        said.append("unnormalized_input")
    if run.first_nonfinite_loss is not None:
        said.append("nonfinite")
    if run.part("linear_pairs"):
        said.append("missing_activation")
    rate = run.series("lr").median(0.0)
    if rate > 0.01:
        said.append("lr_too_high")
    elif 0 < rate < 1e-7:
        said.append("lr_too_low")
    held_out = run.series("val_loss").finite
    train = [run.loss.between(s - 9, s).median() for s in held_out.steps.tolist()]
    pairs = zip(np.diff(held_out.values), np.diff(train), strict=True)
    if any(worse > 0 and better <= 0 for worse, better in pairs):
        said.append("overfitting")
    return said


TOOLS: dict[str, Callable[[Observations], Said]] = {
    "SageMaker Debugger": sagemaker,
    "AUTOTRAINER": autotrainer,
    "TheDeepChecker": the_deep_checker,
    "UMLAUT": umlaut,
}


def _sizes(run: Observations) -> list[float]:
    """Gradient sizes of the weights in call order, at the end."""
    rows = [[v for v in row["grad_rms"][-8:] if v is not None] for row in run.weights]
    return [float(np.median(values)) for values in rows if values]


def _rows(run: Observations, *functions: str) -> list[dict[str, Any]]:
    return [r for r in run.part("activations") or () if r["function"] in functions]


def _dead(run: Observations) -> float:
    return max((float(r["dead"] or 0) for r in _rows(run, "relu")), default=0.0)


def _saturated(run: Observations) -> float:
    return max((float(r["saturated"] or 0) for r in _rows(run, "tanh", "sigmoid")), default=0.0)


def _silent(run: Observations) -> float:
    return max((float(row["silent_rows"] or 0) for row in run.weights), default=0.0)


def _unchanged(row: dict[str, Any]) -> bool:
    ratios = row["update_ratio"]
    return not row["in_optimizer"] or (len(ratios) >= 3 and all((v or 0) < 1e-5 for v in ratios))


def _weight_variance_ratio(run: Observations) -> float:
    """Largest over smallest variance of activations, from the first measured step."""
    first = [run.series("activation_std", module["path"]).values[:1] for module in run.modules]
    variances = [float(v[0]) ** 2 for v in first if len(v) and v[0] > 0]
    return max(variances) / min(variances) if len(variances) > 1 else 1.0


def _f_ratio(row: dict[str, Any]) -> float:
    """Variance of the weights against LeCun's, the larger over the smaller."""
    gain = row["start"].get("gain") or 0.0
    return max(gain**2, 1 / gain**2) if gain else math.inf
