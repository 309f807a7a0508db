"""Steps are so long that the loss jumps instead of falling.

Statistics: (a) divergence: the loss rises to twice its first value in the first 50 steps, or its
smoothed value to three times its best later, or becomes non-finite after rising, while parameters
move by more than 3 % a step; (b) a median update ratio above 0.1 while the loss does not fall;
(c) parameters that move by more than their own size in one of the first steps, or by a third of it
while the loss grows by a third, in a run that does not learn; (d) a learning rate that rises in one
step to five times what it ever was, whereupon the loss doubles or is lost, or triples and never
is much lower than before.
Threshold: as named; the target line for ‖Δw‖/‖w‖ is 1e-3 (CS231n).
Source: TheDeepChecker (update ratio), own divergence rule (0 false alarms of 7); UMLAUT's fixed
limit lr > 0.01 alarms on every SGD run and is not used.
False alarms: adversarial losses rise when the opponent learns (hence the update ratio is asked
too); warm restarts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import set_lr
from inspector.numerals import short

CODE = "lr_too_high"
_EARLY = 50  # losses


@register(CODE, moving=0.03, far=0.1, rise=2.0, late_rise=3.0, jump=5.0, thrown=0.3, grown=1.3)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    raised = _raised(run, limits)
    if raised is not None:
        yield raised
        return
    ratios = run.update_ratio
    if not len(ratios) or len(run.loss) < 5:
        return
    early = ratios.between(0, 20)
    begins = early.median(0.0) > ratios.median(0.0)
    moving = (early if begins else ratios).median(0.0)
    until = int(early.steps[-1]) if begins else run.last_step
    peak = float(np.nanmax(early.values)) if len(early.finite) else 0.0
    rise = _rise(run, limits)
    if rise is not None and (moving > limits["moving"] or peak > 1):
        step, factor, evidence = rise
        step = _thrown(run, step, limits["far"])
        usual = moving > limits["moving"]
        yield _finding(
            run,
            "critical" if run.first_nonfinite_loss is not None or not run.learning else "warning",
            0.86,
            step,
            f"The loss rises to {short(factor, 2)} times its value while weights move by "
            + ("" if usual else "up to ")
            + f"{_of_their_size(moving if usual else peak)} a step.",
            (
                evidence,
                _ratio_evidence(run, moving, limits["moving"], until=until)
                if usual
                else _ratio_evidence(run, peak, 1.0, "largest", until=int(early.steps[-1])),
            ),
        )
    elif not run.learning and (
        peak > 1 or (peak > limits["thrown"] and _grown(run) > limits["grown"])
    ):
        yield _finding(
            run, "warning", 0.72, int(early.steps[(early.values > limits["thrown"]).argmax()]),
            f"Weights move by {_of_their_size(peak)} in one of the first steps, and the loss does "
            "not fall.",
            (_ratio_evidence(run, peak, limits["thrown"], "largest", until=int(early.steps[-1])),),
        )  # fmt: skip
    elif moving > limits["far"] and not run.learning:
        yield _finding(
            run, "warning", 0.72, int(ratios.steps[0]),
            f"Weights move by {_of_their_size(moving)} a step, and the loss does not fall.",
            (_ratio_evidence(run, moving, limits["far"], until=until),),
        )  # fmt: skip
    elif ratios.median(0.0) > limits["far"]:
        yield _finding(
            run, "note", 0.4, int(ratios.steps[0]),
            f"Weights move by {_of_their_size(ratios.median())} a step.",
            (_ratio_evidence(run, ratios.median(), limits["far"], until=run.last_step),),
        )  # fmt: skip


def _of_their_size(ratio: float) -> str:
    """How far weights move, for people: ``12% of their size``, ``4.6e3 times their size``."""
    return f"{ratio:.0%} of their size" if ratio < 1 else f"{short(ratio, 2)} times their size"


def _raised(run: Observations, limits: Thresholds) -> Finding | None:
    """A jump of the learning rate that lasts, with a loss that follows it."""
    rates = run.series("lr").finite
    if len(rates) < 20:
        return None
    highest = np.maximum.accumulate(rates.values)[:-1]
    rise = rates.values[1:] / np.maximum(highest, 1e-30)
    at = int(rise.argmax())
    since, factor = int(rates.steps[at + 1]), float(rise[at])
    now = float(rates.values[at + 1])
    if factor < limits["jump"] or at < 10 or rates.values[-1] < 0.3 * now:
        return None
    before = run.loss.between(since - 30, since - 1).finite
    after = run.loss.between(since, since + 60)
    if not len(before) or len(after) < 3:
        return None
    usual, high = before.median(), float(np.quantile(before.values, 0.9))
    values = np.where(np.isfinite(after.values), after.values, np.inf)
    grown = float(np.median(values)) / max(usual, 1e-12)
    lasts = np.median(values) > max(high, 0.0) and grown > limits["rise"]
    peak = max(float(np.median(values[at : at + 3])) for at in range(len(values) - 2))
    # Units may die, or saturate, in the first steps; then the loss calms down and stays.
    spoiled = 0 < limits["late_rise"] * usual < peak and run.loss_at_end() > 0.9 * usual
    if not (lasts or spoiled):
        return None
    grown_text = f"{short(grown, 3)} times as high" if math.isfinite(grown) else "lost"
    if not lasts:
        grown_text = f"no lower, after it was up to {short(peak / usual, 2)} times as high"
    return _finding(
        run, "critical" if run.first_nonfinite_loss is not None else "warning", 0.95, since,
        f"The learning rate rose to {short(factor, 3)} times its value at step {since}; since then "
        f"the loss is {grown_text}.",
        (
            Evidence(
                statistic="learning rate over the highest before",
                value=factor,
                threshold=limits["jump"],
                quantity="lr",
                first=since - 1,
                last=run.last_step,
                drawing=over_steps(
                    rates.steps, rates.values, "learning rate",
                    (float(limits["jump"] * highest[at]),
                     f"{short(limits['jump'], 3)} × highest before"),
                    log=True,
                ),
            ),
        ),
        set_lr(now / factor, current=now),
    )  # fmt: skip


def _rise(run: Observations, limits: Thresholds) -> tuple[int, float, Evidence] | None:
    """The step at which the loss has clearly risen, by what factor, and what shows it."""
    loss = run.loss
    start = abs(run.first_loss)
    if not math.isfinite(start) or start == 0:
        return None
    values = np.where(np.isfinite(loss.values), loss.values, np.inf)
    early = values[:_EARLY]
    smooth = np.array([np.median(early[max(0, i - 2) : i + 1]) for i in range(len(early))])
    high = smooth > limits["rise"] * start
    if high.any():
        at = int(high.argmax())
        finite = smooth[np.isfinite(smooth)]
        grew = float(finite.max() / start) if len(finite) else 1.0
        return (int(loss.steps[at]), grew, _early_rise(run, grew, limits)) if grew > 1.5 else None
    average, best = float(early[0]), math.inf
    over: list[float] = []
    for position, value in enumerate(values):
        if not math.isfinite(value):
            return None
        average = 0.9 * average + 0.1 * float(value)
        best = min(best, average)
        over.append(average / best)
        if position >= 20 and average > limits["late_rise"] * best and average > 0.5 * start:
            return int(loss.steps[position]), average / best, _late_rise(run, over, limits)
    return None


def _grown(run: Observations) -> float:
    """The largest of the first losses, smoothed, over the first one."""
    early = run.loss.values[:_EARLY]
    smooth = [float(np.median(early[max(0, i - 2) : i + 1])) for i in range(2, len(early))]
    return max(smooth, default=0.0) / abs(run.first_loss) if run.first_loss > 0 else 0.0


def _thrown(run: Observations, risen: int, far: float) -> int:
    """The first step that moved weights by much of their size, of a loss that rose early."""
    if risen > run.loss.steps[:_EARLY][-1]:
        return risen
    before = run.update_ratio.between(0, risen).finite
    return (
        int(before.steps[(before.values > far).argmax()]) if (before.values > far).any() else risen
    )


def _late_rise(run: Observations, over: list[float], limits: Thresholds) -> Evidence:
    steps = run.loss.steps[: len(over)]
    return Evidence(
        statistic="smoothed loss over its lowest value",
        value=over[-1],
        threshold=limits["late_rise"],
        quantity="loss",
        last=int(steps[-1]),
        drawing=over_steps(steps, over, "smoothed loss over its lowest value"),
    )


def _early_rise(run: Observations, factor: float, limits: Thresholds) -> Evidence:
    return Evidence(
        statistic="loss over its first value",
        value=factor,
        threshold=limits["rise"],
        quantity="loss",
        last=int(run.loss.steps[:_EARLY][-1]),
        drawing=over_steps(
            run.loss.steps,
            run.loss.values / abs(run.first_loss),
            "loss over its first value",
            log=factor > 30,
        ),
    )


def _ratio_evidence(
    run: Observations, value: float, limit: float, which: str = "median", *, until: int
) -> Evidence:
    return Evidence(
        statistic=f"{which} update ratio ‖Δw‖/‖w‖",
        value=value,
        threshold=limit,
        quantity="total_update_ratio",
        last=until,
        drawing=over_steps(
            run.update_ratio.steps, run.update_ratio.values, "update ratio ‖Δw‖/‖w‖", log=True
        ),
    )


def _finding(
    run: Observations,
    level: str,
    confidence: float,
    step: int,
    title: str,
    evidence: tuple[Evidence, ...],
    remedy: Remedy | None = None,
) -> Finding:
    current = run.series("lr").median()
    ratio = _while_sane(run) or next((e.value for e in reversed(evidence) if e.value), 1.0)
    advice: tuple[Remedy, ...] = (remedy,) if remedy is not None else ()
    if remedy is None and math.isfinite(current) and ratio:
        advice = (set_lr(current * min(3e-3 / ratio, 0.1), current=current),)
    if run.summed_over > 1:
        mean = f"Take the mean over the batch: this loss is the sum over {run.summed_over} samples."
        advice = (Remedy(text=mean, code='F.cross_entropy(..., reduction="mean")'), *advice)
    return Finding(
        code=CODE,
        level=level,  # type: ignore[arg-type]
        title=title,
        confidence=confidence,
        step=step,
        evidence=evidence,
        explanation=(
            "A step along the gradient lowers the loss only while the surface is about straight. "
            "Too long a step lands on the other side of the valley, higher than before; the next "
            "gradient is larger still, and the loss oscillates or diverges."
        ),
        reference="Smith 2017, arXiv:1506.01186; CS231n: ratio of weights to updates",
        remedies=advice,
    )


def _while_sane(run: Observations) -> float:
    """Median update ratio before the loss first doubled; 0 where none was measured or it never did.

    What the weights move by later says how far they have been thrown, not how far they should go.
    """
    high = ~(run.loss.values <= 2 * abs(run.first_loss))  # NaN counts as high
    if not high.any():
        return 0.0
    return run.update_ratio.between(0, int(run.loss.steps[high.argmax()]) - 1).median(0.0)
