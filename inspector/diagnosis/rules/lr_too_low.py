"""Steps are so short that nothing happens.

Statistic: median update ratio ‖Δw‖/‖w‖ of the second half of the run, together with a loss that
fell by less than 5 % and is not small already (over a third of that of guessing).
Threshold: 1e-4 from 50 steps on; less than 0.2 % in all, whatever the (noisy) loss seems to do;
0 exactly is critical.
Said otherwise where clipping leaves under 5 % of the gradient, or a schedule a three-hundredth of
the learning rate.
Later: a learning rate that falls to a three-hundredth of its value in one step and stays there.
Source: SageMaker Debugger WeightUpdateRatio, TheDeepChecker (1e-4, lowered there to 1e-5).
False alarms: fine-tuning a model that is good already (its small loss keeps the rule silent);
warm-up that has not ended; weights that this very rate has thrown so far (by 0.3 of their size in
one step) that they hardly move beside their new size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Curve, Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import set_lr
from inspector.events import Level
from inspector.numerals import short

CODE = "lr_too_low"


@register(
    CODE, ratio=1e-4, note=3e-4, fall=0.05, distance=2e-3, steps=50, drop=300, clipped=0.05,
    thrown=0.3,
)  # fmt: skip
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    dropped = _dropped(run, limits)
    if dropped is not None:
        yield dropped
        return
    ratios = run.update_ratio
    if len(run.loss) < limits["steps"] or len(ratios) < 4:
        return
    moving = ratios.between(run.last_step // 4, run.last_step).median(ratios.median())
    start, end = run.loss_at_start(), run.loss_at_end()
    if not (math.isfinite(start) and math.isfinite(end)) or start == 0:
        return
    fall = (start - end) / abs(start)
    rates = run.series("lr")
    still = moving * run.last_step < limits["distance"]
    if _warming_up(rates.values.tolist()) or (run.learning and not still):
        return
    guessing = run.floor or run.guessing
    small = guessing is not None and end < guessing / 3
    if moving >= limits["note"] or small or (fall > 4 * limits["fall"] and not still):
        return
    if _throws(ratios, rates, limits["thrown"]):
        return
    sure = still or (moving < limits["ratio"] and fall < limits["fall"])
    # A note has limits of its own.
    least, rise = (
        (limits["ratio"], limits["fall"]) if sure else (limits["note"], 4 * limits["fall"])
    )
    level: Level = "note" if not sure else "critical" if moving == 0 else "warning"
    current, newest = rates.median(), float(rates.finite.values[-1]) if len(rates.finite) else None
    factor = min(1e-3 / moving, 1e4) if moving > 0 else 1.0
    found = Finding(
        code=CODE,
        level=level,
        title=f"Weights move by {short(moving, 2)} of their size a step; the loss "
        f"{'fell' if fall >= 0 else 'rose'} by {abs(fall):.1%}.",
        confidence=0.8 if sure else 0.4,
        step=_slowed_at(ratios, limits["note"]),
        evidence=(
            Evidence(
                statistic="median update ratio ‖Δw‖/‖w‖",
                value=moving,
                threshold=least,
                side="below",
                quantity="total_update_ratio",
                first=run.last_step // 4,
                last=run.last_step,
                drawing=over_steps(ratios.steps, ratios.values, "update ratio ‖Δw‖/‖w‖", log=True),
            ),
            Evidence(
                statistic="fall of the loss",
                value=fall,
                threshold=rise if fall < rise else None,
                side="below",
                quantity="loss",
                last=run.last_step,
                drawing=over_steps(
                    run.loss.steps,
                    (start - run.loss.values) / abs(start),
                    "fall of the loss, as a share of its start",
                ),
            ),
        ),
        explanation=(
            "A healthy step changes the weights by about a thousandth of their size. At a "
            "hundred-thousandth the run would take a hundred times as long."
        ),
        reference="CS231n: ratio of weights to updates; SageMaker Debugger WeightUpdateRatio",
        remedies=(
            (set_lr(current * factor if current > 0 else 1e-3, current=newest),)
            if math.isfinite(current)
            else ()
        ),
    )
    if found.step and newest is not None and newest * limits["drop"] < rates.finite.values.max():
        yield _ran_out(found, rates.finite)
    elif _left_by_clipping(run, moving) < limits["clipped"]:
        yield _clipped_away(found, run, moving)
    else:
        yield found


def _ran_out(found: Finding, rates: Curve) -> Finding:
    """The same, where a schedule has taken the learning rate away."""
    highest, newest = float(rates.values.max()), float(rates.values[-1])
    return dataclasses.replace(
        found,
        heading="Learning rate ran out",
        title=f"The learning rate fell from {short(highest, 2)} to {short(newest, 2)}: since step "
        f"{found.step} weights hardly move.",
        explanation=(
            "A schedule lowers the learning rate by a factor each time it is stepped. Stepped once "
            "a batch, where once an epoch was meant, it ends the training in the first epoch."
        ),
        remedies=(
            Remedy(
                text="Step the schedule once an epoch, or count its steps in batches.",
                code="for epoch in range(epochs): ...; scheduler.step()  # behind the inner loop",
            ),
            set_lr(highest, current=newest),
        ),
    )


def _clipped_away(found: Finding, run: Observations, moving: float) -> Finding:
    """The same, where it is clipping that leaves hardly anything of the gradient."""
    left = _left_by_clipping(run, moving)
    usual = run.series("total_grad_norm").median()
    return dataclasses.replace(
        found,
        heading="Clipping too tight",
        title=f"Clipping leaves {short(100 * left, 2)}% of the gradient: weights move by "
        f"{short(moving, 2)} of their size a step.",
        explanation=(
            "Clipping is there for the few steps whose gradient is far larger than usual. Where it "
            "shortens every step, it acts as a lower learning rate. "
        )
        + found.explanation,
        remedies=(
            Remedy(
                text=f"Clip above the usual norm, which is {short(usual, 2)}.",
                code=f"torch.nn.utils.clip_grad_norm_(model.parameters(), {short(4 * usual, 1)})",
            ),
        ),
    )


def _left_by_clipping(run: Observations, moving: float) -> float:
    """Median share of the gradient that clipping leaves; 1 where steps do not follow its length.

    Adam and its kin make steps of the learning rate's length, however long the gradient is. With
    plain descent a step is the learning rate times the gradient, with momentum some ten times that.
    """
    before, after = run.series("total_grad_norm"), run.series("clipped_grad_norm")
    count = min(len(before), len(after))
    sizes = [math.prod(row["shape"]) * (row["weight_rms"][0] or 0.0) ** 2
             for row in run.parameters if row["weight_rms"]]  # fmt: skip
    step = run.series("lr").median(0.0) * after.median(0.0)
    if not count or before.median(0.0) == 0 or moving * math.sqrt(sum(sizes)) > 30 * step:
        return 1.0
    shares = after.values[:count] / np.maximum(before.values[:count], 1e-30)
    return Curve(after.steps[:count], shares).median(1.0)


def _slowed_at(ratios: Curve, limit: float) -> int:
    """The first measured step after the last one that moved the weights; 0 if none ever did."""
    moved = np.flatnonzero(ratios.values > limit)
    if not len(moved) or moved[-1] + 1 == len(ratios):
        return 0
    return int(ratios.steps[moved[-1] + 1])


def _throws(ratios: Curve, rates: Curve, far: float) -> bool:
    """Whether the newest learning rate, or hardly another, has moved the weights that far at once.

    One three times as high, or higher, is another: what it did says nothing about the newest.
    """
    rates = rates.finite
    if not len(rates):
        return False
    steps = ratios.steps[ratios.values > far]
    at = np.searchsorted(rates.steps, steps, side="right") - 1
    return bool((rates.values[np.maximum(at, 0)] < 3 * rates.values[-1]).any())


def _dropped(run: Observations, limits: Thresholds) -> Finding | None:
    """A learning rate that fell in one step to less than a schedule would take it."""
    rates = run.series("lr").finite
    if len(rates) < 20:
        return None
    fall = rates.values[:-1] / np.maximum(rates.values[1:], 1e-30)
    at = int(fall.argmax())
    since = int(rates.steps[at + 1])
    before, now = float(rates.values[at]), float(rates.values[at + 1])
    low = rates.values[at + 1 :]
    if fall[at] < limits["drop"] or len(low) < 10 or low.max() > 10 * now or now < 0:
        return None
    if rates.values[: at + 1].max() > 10 * before:
        return None
    return Finding(
        code=CODE,
        level="warning",
        title=f"The learning rate fell to 1/{fall[at]:.0f} of its value at step {since}: "
        "hardly anything moves since.",
        confidence=0.85,
        step=since,
        evidence=(
            Evidence(
                statistic="learning rate before over after",
                value=float(fall[at]),
                threshold=limits["drop"],
                quantity="lr",
                first=since - 1,
                last=run.last_step,
                drawing=over_steps(rates.steps, rates.values, "learning rate", log=True),
            ),
        ),
        explanation=(
            "Schedules lower the learning rate by ten at a time, or smoothly. A thousandth at "
            "once ends the training, whatever the loss is by then."
        ),
        reference="CS231n: ratio of weights to updates; annealing the learning rate",
        remedies=(set_lr(before, current=now),),
    )


def _warming_up(rates: list[float]) -> bool:
    return len(rates) > 1 and rates[-1] > 1.5 * rates[0] and rates[-1] >= max(rates)
