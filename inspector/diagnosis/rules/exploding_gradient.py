"""Gradients grow on their way back, or shoot up in single steps.

Statistic: gradient norm of all parameters over the loss (so that the scale of the targets cancels)
in the first 20 steps; later, the norm over the largest of the 20 measurements before. Before
clipping and unscaled where the recorder measured it.
For recurrent modules: the gradient at the first over that at the last time step, when the norm of
all has also risen to five times its median.
Threshold: 100 at the beginning and through time (but three times the number of time steps); later
10 times the recent maximum and 10 times the loss, unless 50 steps later all is as before.
Source: own (fired at step 0–1 in 9 of 9 exploding runs, no false alarm of 7); TheDeepChecker's
doubling at four checks comes after the NaN.
False alarms: losses that are sums over the batch; a large norm that clipping takes care of is
only a note.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import Drawing, over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Curve, Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.numerals import short

CODE = "exploding_gradient"
_LONG = 50  # steps
_ORTHOGONAL = Remedy(
    text="Initialise recurrent weights orthogonally, or use gates: LSTM or GRU.",
    code="torch.nn.init.orthogonal_(rnn.weight_hh_l0)",
)
_NORMALISE = Remedy(
    text="Normalise between modules, or start with smaller weights (He).",
    code="nn.LayerNorm(width)  # or torch.nn.init.kaiming_normal_(module.weight)",
)


@register(CODE, relative=100.0, growth=10.0, jump=10.0, burst=5.0)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    norms = run.grad_norm
    if not len(norms) or not len(run.loss):
        return
    relative = _over_loss(norms, run)
    start = relative.between(0, 0).median(0.0)
    early = relative.between(0, 20)
    peak = float(np.nanmax(early.values)) if len(early.finite) else 0.0
    clipped = _is_clipped(run)
    if len(early) and max(start, early.median(0.0)) > limits["relative"]:
        step = int(early.steps[np.nan_to_num(early.values, nan=np.inf) > limits["relative"]][0])
        yield _finding(
            run,
            "The gradient is far larger than the loss from "
            + (f"step {step} on." if step else "the first step on."),
            clipped,
            0.88 if start > limits["relative"] else 0.7,
            step,
            Evidence(
                statistic="gradient norm over loss",
                value=max(start, peak),
                threshold=limits["relative"],
                quantity="total_grad_norm",
                last=20,
                drawing=_drawn(relative),
            ),
        )
        return
    recurrent = _through_time(run, limits["relative"])
    largest = float(np.nanmax(relative.finite.values, initial=0.0))
    if recurrent is not None and largest > limits["burst"] * relative.median(0.0):
        step, factor, module = recurrent
        yield _finding(
            run,
            f"The gradient grows by a factor of {short(factor, 2)} on its way back through time.",
            clipped,
            0.86,
            step,
            Evidence(
                statistic="gradient at the first over that at the last time step",
                value=factor,
                threshold=limits["relative"],
                quantity="total_grad_norm",
                first=step,
                last=run.last_step,
                drawing=_drawn(
                    relative,
                    (
                        limits["burst"] * relative.median(0.0),
                        f"limit: {short(limits['burst'], 6)} × the median",
                    ),
                ),
            ),
            module,
        )
        return
    jump = _jump(relative, limits["growth"], limits["jump"])
    if jump is not None:
        step, factor, largest_before = jump
        if _is_over(run, relative, step):
            return
        yield _finding(
            run,
            f"The gradient norm jumps by a factor of {short(factor, 2)} at step {step}.",
            clipped,
            0.66,
            step,
            Evidence(
                statistic="gradient norm over the largest of the 20 measurements before",
                value=factor,
                threshold=limits["growth"],
                quantity="total_grad_norm",
                first=step,
                last=run.last_step,
                drawing=_drawn(
                    relative,
                    (
                        max(limits["growth"] * largest_before, limits["jump"]),
                        f"limit: {short(limits['growth'], 6)} × the largest before",
                    ),
                ),
            ),
        )


def _finding(
    run: Observations,
    title: str,
    clipped: bool,
    confidence: float,
    step: int,
    evidence: Evidence,
    module: str | None = None,
) -> Finding:
    return Finding(
        code=CODE,
        level="note" if clipped else "warning",
        title=title + (" Clipping takes care of it." if clipped else ""),
        confidence=0.4 if clipped else confidence,
        module=module,
        step=step,
        evidence=(evidence,),
        explanation=(
            "Going back through many modules or time steps, the gradient is multiplied again and "
            "again; factors above 1 make it grow exponentially. One such step throws the weights "
            "far away, and the loss jumps or becomes NaN."
        ),
        reference="Pascanu et al. 2013, arXiv:1211.5063; AUTOTRAINER",
        remedies=(*remedies(CODE), _ORTHOGONAL if _is_recurrent(run) else _NORMALISE),
    )


def _is_recurrent(run: Observations) -> bool:
    kinds = {str(row.get("type")) for row in run.modules}
    return bool(run.part("through_time")) or any(
        kind.startswith(("RNN", "LSTM", "GRU")) for kind in kinds
    )


def _through_time(run: Observations, limit: float) -> tuple[int, float, str] | None:
    """Step, factor and module where a recurrent module's gradient grew most.

    A loss at every time step alone makes the first gradient larger by the number of steps.
    """
    for row in run.part("through_time") or ():
        factor = float(row.get("largest_ratio") or 0.0)
        if factor > max(limit, 3.0 * row["calls"]):
            return int(row["largest_ratio_step"]), factor, str(row["module"])
    return None


def _over_loss(norms: Curve, run: Observations) -> Curve:
    """Gradient norms over the loss, or over that of guessing where the loss has exploded too."""
    loss = run.loss
    known = dict(zip(loss.steps.tolist(), loss.values.tolist(), strict=True))
    first = abs(run.first_loss) if np.isfinite(run.first_loss) else 1.0
    scale = max(min(first, run.guessing or first), 1e-8)
    values = [
        norm / min(max(abs(known.get(step, scale)), 0.1 * scale), scale)
        for step, norm in zip(norms.steps.tolist(), norms.values.tolist(), strict=True)
    ]
    return Curve(norms.steps, np.array(values, dtype=np.float64))


def _drawn(relative: Curve, *limits: tuple[float, str]) -> Drawing:
    return over_steps(relative.steps, relative.values, "gradient norm over loss", *limits, log=True)


def _is_over(run: Observations, relative: Curve, step: int) -> bool:
    """Whether gradients and loss have long been again what they were before a jump."""
    loss = run.loss.between(step - 30, step - 1).median()
    calm = False  # by themselves, or beside a loss that may have fallen to next to nothing since
    for sizes in (run.grad_norm, relative):
        before, late = sizes.between(0, step - 1), sizes.between(step + _LONG, run.last_step)
        calm |= len(late) >= 8 and late.values[-8:].max() < 2 * before.values[-20:].max()
    return bool(calm and run.loss_at_end() <= max(1.5 * loss, 0.1 * (run.floor or 0.0)))


def _is_clipped(run: Observations) -> bool:
    """Whether the optimizer receives much less than the backward pass made, in most steps."""
    before, after = run.series("total_grad_norm"), run.series("clipped_grad_norm")
    count = min(len(before), len(after))
    if not count:
        return False
    less = after.values[:count] < 0.5 * before.values[:count]
    large = before.values[:count] > 1
    return bool(large.any()) and float(less[large].mean()) >= 0.5


def _jump(relative: Curve, growth: float, least: float) -> tuple[int, float, float] | None:
    """Step, factor, and the largest of the measurements before."""
    values = relative.values
    for position in range(3, len(values)):
        before = values[max(0, position - 20) : position]
        largest = float(np.nanmax(before)) if np.isfinite(before).any() else 0.0
        if largest > 0 and values[position] > max(growth * largest, least):
            return int(relative.steps[position]), float(values[position] / largest), largest
    return None
