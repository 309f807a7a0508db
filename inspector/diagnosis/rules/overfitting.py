"""The training part is learned by heart while the held-out part gets worse.

Statistics: (a) accuracy of training minus validation ≥ 0.10 in three evaluations in a row; (b) the
validation loss lies 15 % above its minimum for three evaluations while the training loss fell;
(c) a validation loss of three times the training loss that no longer improves, or of 1.5 times
that rose in each of the last evaluations by 5 % in total.
Source: AUTOTRAINER's gap with patience; SageMaker Debugger's Overfit (0.1, patience 1) and
UMLAUT's rule alarm on five to seven of seven healthy runs and are not used.
False alarms: validation data of another kind; noisy small validation parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import Drawing, over_steps
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Curve, Floats, Observations, Steps
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "overfitting"


@register(CODE, gap=0.10, rise=1.15, steady=1.05, times=3.0, some=1.5, patience=3)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    patience = int(limits["patience"])
    gap = _accuracy_gap(run, patience)
    if gap is not None and gap[1] >= limits["gap"]:
        yield _finding(
            f"Training accuracy is {gap[1]:.0%} above that of validation.", 0.8, gap[0],
            Evidence(statistic="smallest gap of accuracy in the last evaluations", value=gap[1],
                     threshold=limits["gap"], quantity="val_accuracy", first=gap[0],
                     last=run.last_step, drawing=_gaps(run)),
        )  # fmt: skip
        return
    held_out = run.series("val_loss").finite
    if len(held_out) < patience + 1:
        return
    values = held_out.values
    train = _at(run.loss, held_out)
    lowest = int(values.argmin())
    after = values[lowest + 1 :]
    fell = train[-1] < 0.9 * train[lowest]
    floor = max(0.02 * abs(run.first_loss), 1e-6)
    if (
        len(after) >= patience
        and fell
        and (after[-patience:].min() > limits["rise"] * values[lowest] and values[-1] > floor)
    ):
        yield _finding(
            "The validation loss rises while the training loss falls.", 0.82,
            int(held_out.steps[lowest]),
            Evidence(statistic="validation loss over its minimum",
                     value=float(values[-1] / values[lowest]), threshold=limits["rise"],
                     quantity="val_loss", first=int(held_out.steps[lowest]), last=run.last_step,
                     drawing=_over_minimum(held_out.steps, values, lowest)),
        )  # fmt: skip
        return
    rising = len(after) >= patience - 1 and bool((np.diff(values[-patience:]) > 0).all())
    steady = rising and values[-1] > limits["steady"] * values[lowest]
    ratios = values[-patience:] / np.maximum(train[-patience:], 1e-9)
    limit = limits["some"] if steady else limits["times"]
    stalled = values[-patience:].min() > 0.95 * values[:-patience].min()
    over = (steady and fell) or (stalled and train[-1] < 0.9 * train[0])
    if over and ratios.min() > limit and values[-1] > 2 * floor:
        yield _finding(
            f"The validation loss is {ratios[-1]:.1f} times the training loss.", 0.65,
            int(held_out.steps[lowest]),
            Evidence(statistic="validation loss over training loss", value=float(ratios[-1]),
                     threshold=limit, quantity="val_loss", last=run.last_step,
                     drawing=over_steps(held_out.steps, values / np.maximum(train, 1e-9),
                                        "validation loss over training loss", log=True)),
        )  # fmt: skip


def _over_minimum(steps: Steps, values: Floats, lowest: int) -> Drawing:
    """From where the loss is no higher than it gets again: its first values would flatten it."""
    higher = np.flatnonzero(values[:lowest] > values[lowest:].max())
    start = int(higher[-1]) + 1 if len(higher) else 0
    axis = "validation loss over its minimum" + f", from step {steps[start]}" * (start > 0)
    return over_steps(steps[start:], values[start:] / values[lowest], axis)


def _accuracy_gap(run: Observations, patience: int) -> tuple[int, float] | None:
    """First step of the last evaluations, and the smallest gap among them."""
    held_out, training = run.series("val_accuracy").finite, run.series("accuracy").finite
    if len(held_out) < patience or not len(training):
        return None
    gaps = _at(training, held_out) - held_out.values
    return int(held_out.steps[-patience]), float(gaps[-patience:].min())


def _gaps(run: Observations) -> Drawing:
    held_out, training = run.series("val_accuracy").finite, run.series("accuracy").finite
    return over_steps(
        held_out.steps, _at(training, held_out) - held_out.values,
        "training accuracy minus validation accuracy",
    )  # fmt: skip


def _at(curve: Curve, places: Curve) -> np.ndarray:
    """Median of a noisy curve over the ten steps before each of the places."""
    medians = [curve.between(step - 9, step).median() for step in places.steps.tolist()]
    return np.array(medians, dtype=np.float64)


def _finding(title: str, confidence: float, step: int, evidence: Evidence) -> Finding:
    return Finding(
        code=CODE,
        level="warning",
        title=title,
        confidence=confidence,
        step=step,
        evidence=(evidence,),
        explanation=(
            "With more parameters than information in the data, a model can learn every sample "
            "by heart. What it learns late is noise of the training part, which does not help, "
            "and then harms, elsewhere."
        ),
        reference="AUTOTRAINER (Zhang et al. 2021); Prechelt 1998, Early stopping",
        remedies=remedies(CODE),
    )
