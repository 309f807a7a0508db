"""Weights that start too large, too small, or all alike.

Statistics: (a) rows of a weight that start alike, unless they are zero and other weights are not,
or that are still alike after several steps: the units compute the same (exact); (b) gain =
std·√fan_in of the initial weights (0.58 is PyTorch's default, 1 Xavier, 1.41 He) outside
[0.05, 4], together with a symptom: a first loss over twice that of guessing, a fading or exploding
gradient, or no learning;
its product over weights under 0.3 (half of PyTorch's default) is under 1e-3, without a
normalisation or residual connection and without learning;
(c) the first loss over three times that of guessing (ln C);
(d) a weight that became three times larger or smaller between two steps and was written to by
something else than the optimizer (its version counter tells), until it is written back; a note
500 steps later if the loss has recovered.
Source: SageMaker Debugger PoorWeightInitialization, TheDeepChecker (its F test alarms on every
``nn.Linear`` and is not used), Karpathy's recipe (verify the loss at init).
Tables that a module holds beside other modules (class token, attention biases) are left out.
False alarms: networks with factors of their own (NTK parametrisation, SIREN) are only notes
unless a symptom shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from inspector.diagnosis.drawing import Drawing, as_bars, over_steps
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.events import Level
from inspector.numerals import short

CODE = "poor_initialization"
_LATELY = 500  # steps after which what has recovered is only a note
_ALIKE = 0.15  # spread between the units of a weight, over its size


@register(CODE, large=4.0, small=0.05, first_loss=3.0, feeble=0.3, left=1e-3)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    rewritten = _rewritten(run, limits)
    if rewritten is not None:
        yield rewritten
    weights = _weights(run)
    alike = next((row for row in weights[:-1] if _never_differs(row)), None)
    flat = [row for row in weights if row["start"].get("rows_equal")]
    if alike is None and flat and (len(flat) == len(weights) or _constant(flat[0])):
        alike = flat[0]
    if alike is not None:
        yield _finding(
            "critical", 0.95, alike,
            f"All units of module {alike['module']} start with the same weights.",
            Evidence(statistic="rows of the weight are identical",
                     quantity="weight_norm", subject=alike["name"], last=run.last_step,
                     drawing=_alike(run, alike)),
        )  # fmt: skip
        return
    odd = [
        row
        for row in weights
        if row["start"].get("gain") is not None
        and not row["start"].get("rows_equal")
        and not limits["small"] <= row["start"]["gain"] <= limits["large"]
    ]
    excess = _first_loss_over_guessing(run)
    feeble = _feeble(run, weights, limits)
    if feeble and not odd:
        yield feeble
    elif odd:
        worst = max(odd, key=lambda row: abs(math.log(row["start"]["gain"] + 1e-12)))
        yield _odd_gain(run, worst, excess, limits)
    elif excess is not None and excess > limits["first_loss"]:
        last = run.weights[-1] if run.weights else None
        # With gradients exploding on their way, the weights of one module are not to blame.
        start = run.grad_norm.between(0, 0).median(0.0)
        exploding = run.guessing is not None and start > 100 * run.guessing
        yield _finding(
            "note" if exploding else "warning", 0.4 if exploding else 0.6, last,
            f"The first loss is {excess:.1f} times that of guessing.",
            Evidence(statistic="first loss over that of guessing", value=excess,
                     threshold=limits["first_loss"], quantity="loss",
                     drawing=over_steps(run.loss.steps, run.loss.values / (run.guessing or 1.0),
                                        "loss over that of guessing")),
        )  # fmt: skip


def _feeble(run: Observations, weights: list[dict[str, Any]], limits: Thresholds) -> Finding | None:
    """Weights of which each is only somewhat small, in a row that nothing refreshes."""
    refreshed = any("Norm" in name or name == "Add" for name in run.part("operations") or ())
    gains = [(row, row["start"].get("gain")) for row in weights]
    small = [(row, float(gain)) for row, gain in gains if gain and gain < limits["feeble"]]
    left = math.prod(gain for _, gain in small)
    if run.learning or refreshed or left >= limits["left"]:
        return None
    usual = float(np.median([gain for _, gain in small]))
    return _finding(
        "warning", 0.9, small[0][0],
        f"{len(small)} weights in a row start small: each leaves {short(usual, 2)} of its input's "
        f"size, all together {short(left, 1)}.",
        Evidence(
            statistic="product of std·√fan_in over small weights",
            value=left,
            threshold=limits["left"],
            side="below",
            quantity="weight_norm",
            subject=small[0][0]["name"],
            drawing=as_bars(
                [(row["name"], gain) for row, gain in gains if gain],
                "std·√fan_in at the start (He: 1.41)",
                (limits["feeble"], f"limit of a weight: {short(limits['feeble'], 2)}"),
                log=True, marked=[row["name"] for row, _ in small], of=len(gains),
            ),
        ),
    )  # fmt: skip


def _weights(run: Observations) -> list[dict[str, Any]]:
    """What units are weighted with: not the tables that a module has beside the modules in it.

    Such are the tokens for class and mask of a vision transformer, biases of attention, the state
    matrix of a state space model: they start alike, or at zero, on purpose.
    """
    paths = {row["path"] for row in run.modules}
    holders = {path.rpartition(".")[0] for path in paths if path}
    return [
        row
        for row in run.weights
        if row["module"] not in holders or any("weight" in n for n in row["name"].split(".")[-2:])
    ]


def _rewritten(run: Observations, limits: Thresholds) -> Finding | None:
    """Weights that something else than the optimizer made larger, smaller or alike."""
    found = [row for row in run.weights if row.get("rewritten") and _harmed(run, row, limits)]
    if not found:
        return None
    factors = {row["name"]: _factor(row["rewritten"]) for row in found}
    worst = max(found, key=lambda row: abs(math.log(factors[row["name"]])))
    facts, factor = worst["rewritten"], factors[worst["name"]]
    step = run.began(facts["after"], facts["seen"])
    alike = facts["spread"] < _ALIKE and factor < 1
    became = (
        "all alike"
        if alike
        else (
            f"{short(factor, 3)} times as large"
            if factor > 1
            else f"{short(1 / factor, 3)} times smaller"
        )
    )
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    before = run.loss.between(facts["after"] - 30, facts["after"]).median()
    over = run.last_step - step > _LATELY and run.loss_at_end() <= 1.1 * before
    return _finding(
        "note" if over else "warning", 0.4 if over else 0.92, worst,
        f"The weights of module {worst['module']}{more} became {became} at step {step}; no step of "
        "the optimizer did that.",
        Evidence(
            statistic="size of the weight over that before",
            value=factor,
            threshold=3.0 if factor > 1 else 1 / 3,
            side="above" if factor > 1 else "below",
            quantity="weight_norm",
            subject=worst["name"],
            first=int(facts["after"]),
            last=int(facts["seen"]),
            drawing=as_bars(factors.items(),
                            "size of the weight over that before", (1.0, "as before"), log=True,
                            marked=(worst["name"],), of=len(factors)),
        ),
        step,
    )  # fmt: skip


def _harmed(run: Observations, row: dict[str, Any], limits: Thresholds) -> bool:
    """Whether the weights are of no use as a start either, or the loss has leapt."""
    facts = row["rewritten"]
    gain = (facts["rms"] or 0.0) * math.sqrt(row["start"].get("fan_in") or 1.0)
    if facts["spread"] < _ALIKE or not limits["small"] <= gain <= limits["large"]:
        return True
    before = run.loss.between(facts["after"] - 30, facts["after"]).median()
    return bool(run.loss.between(facts["seen"], facts["seen"] + 4).median() > 2 * before)


def _factor(facts: dict[str, Any]) -> float:
    """How many times as large as before; tiny weights count as a millionth."""
    return float(max(facts["rms"] or 0.0, 1e-6 * facts["before"]) / facts["before"])


def _odd_gain(
    run: Observations, worst: dict[str, Any], excess: float | None, limits: Thresholds
) -> Finding:
    gain = float(worst["start"]["gain"])
    large = gain > limits["large"]
    symptom = not run.learning or _unequal_gradients(run) or (excess is not None and excess > 2)
    return _finding(
        "warning" if symptom else "note",
        0.9 if symptom else 0.4,
        worst,
        f"The weights of module {worst['module']} start "
        f"{'far too large' if large else 'almost at zero'}.",
        Evidence(
            statistic="std·√fan_in of the initial weights",
            value=gain,
            threshold=limits["large"] if large else limits["small"],
            side="above" if large else "below",
            quantity="weight_norm",
            subject=worst["name"],
            drawing=as_bars(
                [
                    (row["name"], row["start"]["gain"])
                    for row in run.weights
                    if row["start"].get("gain") is not None
                ],
                "std·√fan_in at the start (He: 1.41)",
                log=True,
                marked=(worst["name"],),
                of=len(run.weights),
            ),
        ),
    )


def _finding(
    level: Level,
    confidence: float,
    row: dict[str, Any] | None,
    title: str,
    evidence: Evidence,
    step: int = 0,
) -> Finding:
    return Finding(
        code=CODE,
        level=level,
        title=title,
        confidence=confidence,
        module=row["module"] if row else None,
        step=step,
        evidence=(evidence,),
        explanation=(
            "Initial weights should keep the size of activations and gradients from module to "
            "module: variance 2/fan_in for ReLU (He), 1/fan_in for tanh. Larger ones saturate or "
            "explode, smaller ones fade, equal ones make all units learn the same."
        ),
        reference="Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852",
        remedies=remedies(CODE),
    )


def _alike(run: Observations, blamed: dict[str, Any]) -> Drawing:
    """Alike units show as no spread at all beside that of the other weights."""
    return as_bars(
        [(row["name"], 0.0 if row["start"].get("rows_equal") else row["start"].get("gain"))
         for row in run.weights],
        "spread of the initial weights between units (std·√fan_in)",
        (0.58, "usual: 0.58"),
        marked=(blamed["name"],),
        of=len(run.weights),
    )  # fmt: skip


def _never_differs(row: dict[str, Any]) -> bool:
    started_alike = bool(row["start"].get("rows_equal"))
    still_zero = bool(row["weight_rms"]) and row["weight_rms"][-1] == 0
    return started_alike and (bool(row["rows_equal"]) or still_zero)


def _constant(row: dict[str, Any]) -> bool:
    """Equal rows that are not zero; zero is a usual start of a last or residual module."""
    return bool(row["start"].get("max"))


def _first_loss_over_guessing(run: Observations) -> float | None:
    if run.guessing is None or not math.isfinite(run.first_loss):
        return None
    return run.first_loss / run.guessing / max(run.summed_over, 1)


def _unequal_gradients(run: Observations) -> bool:
    sizes = [v for row in run.weights for v in row["grad_rms"][:1] if v]
    return len(sizes) > 1 and max(sizes) > 1e3 * min(sizes)
