"""Gradients fade on their way back to the first modules.

Statistic: root mean square of the first weight's gradient over the largest of all weights
(rms(g₁)/max rms), the median over the examined steps; scale-free. Besides: mean gradients below
1e-7 everywhere while the loss has not fallen (SageMaker Debugger's VanishingGradient).
For recurrent modules: the gradient at the first over that at the last time step, 1e-8, in runs
that do not learn (a task that needs only the last steps leaves no gradient for the first).
Threshold: 1e-3 at the beginning and at the end is a warning; at the beginning only a note. What
fades on its way back is least at the front, so it must also be under a tenth of each weight in the
later half, and what is called before it (embeddings, norms) must be small, too: queries and keys of
attention get little in every block, and may come first.
Later: the autograd graph has sigmoids that the first pass had not, and with them the ratio became
less than half.
Source: own ratio (0 false alarms of 7 when replayed); AUTOTRAINER's ‖g₁‖/‖g_L‖ < 1e-3.
False alarms: a first module fed with tiny inputs; per-module learning rates do not matter to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from inspector.diagnosis.drawing import as_bars
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Curve, Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.numerals import short

CODE = "vanishing_gradient"
_NOWHERE = (
    "No module gets a gradient, the last ones neither, so it is not lost on a long way: units that "
    "are all dead or saturated let none through, and where outputs no longer depend on the inputs, "
    "or the loss is flat, none arises."
)
_NOTHING = 1e-45  # stands for an exact zero where one divides by it
_FADES = 0.1
_HALF = 8  # values that the structure document keeps from the beginning and from the end


@register(CODE, ratio=1e-3, absolute=1e-7, time=1e-8, fall=2.0)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    recurrent = _through_time(run, limits)
    if recurrent is not None:
        yield recurrent
        return
    weights = [row for row in run.weights if _alive(row)]
    if len(weights) < 2:
        return
    early = [_median(row["grad_rms"][:_HALF]) for row in weights]
    late = [_median(row["grad_rms"][-_HALF:]) for row in weights]
    squashed = _squashed(run, weights, limits["fall"])
    if squashed is not None:
        yield squashed
        return
    front = [row["grad_rms"] for row in _before(run, weights[0]["module"]) if _alive(row)]
    ratios = (
        _first_over_all(early, [_median(sizes[:_HALF]) for sizes in front]),
        _first_over_all(late, [_median(sizes[-_HALF:]) for sizes in front]),
    )
    lasting = max(ratios) < limits["ratio"]
    everywhere = max(late) < limits["absolute"] and not run.learning
    if run.first_nonfinite_loss is not None or not all(map(_measured_late, weights)):
        lasting, everywhere = False, False  # nothing is left to be measured
    if not (lasting or everywhere or ratios[0] < limits["ratio"]):
        return
    serious = (lasting or everywhere) and not _converged(run)
    absolute = everywhere and not lasting
    value = max(late) if absolute else ratios[0]
    limit = limits["absolute"] if absolute else limits["ratio"]
    first = weights[0]
    sizes = late if absolute else early
    yield Finding(
        code=CODE,
        level="warning" if serious else "note",
        title=f"The gradient of module {first['module']} is "
        f"{_power(1 / max(ratios[0], 1e-30))} times smaller than the largest."
        if not absolute
        else "Gradients are practically zero everywhere.",
        confidence=min(0.75 + 0.05 * float(np.log10(limit / max(value, 1e-30))), 0.95)
        if serious
        else 0.4,
        module=first["module"],
        step=_faded_at(run, first["name"]) if absolute and max(early) > value else 0,
        evidence=(
            Evidence(
                statistic="largest gradient size (rms) of a weight"
                if absolute
                else "gradient size of the first weight over the largest",
                value=_told(value),
                threshold=limit,
                side="below",
                quantity="grad_norm",
                subject=first["name"],
                last=run.last_step,
                drawing=as_bars(
                    [
                        (row["name"], _told(size) if absolute else _told(size) / max(sizes))
                        for row, size in zip(weights, sizes, strict=True)
                    ],
                    "gradient size (rms)" + ("" if absolute else " over the largest"),
                    log=True,
                    marked=(first["name"],),
                ),
            ),
        ),
        explanation=_NOWHERE
        if absolute
        else (
            "Going back, the gradient is multiplied at every module by its weights and by the "
            "derivative of its activation, which for a sigmoid is at most 1/4. After ten such "
            "modules less than a millionth is left: the first modules do not learn."
        ),
        reference="Hochreiter 1991; Glorot & Bengio 2010; AUTOTRAINER (Zhang et al. 2021)",
        remedies=remedies(CODE),
    )


def _before(run: Observations, module: str) -> list[dict[str, Any]]:
    """Parameters that are stepped, of modules that are called before this one."""
    first = run.call_order.get(module, -1)
    return [
        row
        for row in run.parameters
        if row["requires_grad"]
        and row["in_optimizer"]
        and run.call_order.get(row["module"], first) < first
    ]


def _first_over_all(sizes: list[float], front: list[float]) -> float:
    """The size at the front over the largest; 1 where later ones are about as small."""
    later = [size for size in sizes[len(sizes) // 2 :] if size > 0]
    fades = bool(later) and sizes[0] < _FADES * min(later)
    return min(max([sizes[0], *front]) / max(sizes), 1.0) if fades else 1.0


def _squashed(run: Observations, weights: list[dict[str, Any]], limit: float) -> Finding | None:
    """Activations that became sigmoids since a step, and what that does to the first gradient."""
    form = next((form for form in run.part("forms") or () if _sigmoids(form) > 0), None)
    if form is None:
        return None
    before = _first_over_largest(run, weights, form["seen"] - 1)
    now = _first_over_largest(run, weights, form["seen"] + 2 * _HALF)  # two bursts may be one
    if not now or before < limit * now:
        return None
    first, step = weights[0], run.began(form["after"], form["seen"])
    return Finding(
        code=CODE,
        level="warning",
        title=f"Activations are sigmoids since step {step}: the gradient of module "
        f"{first['module']} is {short(before / now, 2)} times smaller beside the largest "
        "than before.",
        confidence=0.9,
        module=first["module"],
        op="sigmoid",
        step=step,
        evidence=(
            Evidence(
                statistic="gradient size of the first weight over the largest, before over since",
                value=before / now,
                threshold=limit,
                quantity="grad_norm",
                subject=first["name"],
                first=int(form["after"]),
                last=run.last_step,
                drawing=as_bars(
                    [(f"{first['name']}, before", before), (f"{first['name']}, since", now)],
                    "gradient size (rms) over the largest",
                    (before / limit, f"limit: 1/{short(limit, 6)} of before"),
                    marked=(f"{first['name']}, since",),
                ),
            ),
        ),
        explanation=(
            "The derivative of a sigmoid is at most 1/4, that of a ReLU 1 where it is on. Going "
            "back, the gradient is multiplied by it at every module."
        ),
        reference="Hochreiter 1991; Glorot & Bengio 2010",
        remedies=remedies(CODE),
    )


def _first_over_largest(run: Observations, weights: list[dict[str, Any]], until: int) -> float:
    """The first weight's gradient over the largest in the steps up to one; 0 where unknown."""
    known = run.gradient_sizes(until)
    sizes = [known.get(row["name"], 0.0) for row in weights]
    return sizes[0] / max(sizes) if max(sizes) > 0 else 0.0


def _sigmoids(form: dict[str, Any]) -> int:
    """How many more there are, where other activations are fewer."""
    was, now = form["was"]["functions"], form["now"]["functions"]
    more = int(now.get("sigmoid", 0)) - int(was.get("sigmoid", 0))
    fewer = any(now.get(name, 0) < count for name, count in was.items())
    return more if fewer else 0


def _power(number: float) -> str:
    """A large number for people: ``40,000`` or ``3·10¹⁰``."""
    digits, _, exponent = f"{number:.0e}".partition("e+")
    if number < 1e6:
        return f"{float(f'{number:.1e}'):,.0f}"
    raised = exponent.lstrip("0").translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits}·10{raised}"


def _faded_at(run: Observations, name: str) -> int:
    """The step from which the gradient norm stays under a thousandth of its greatest value.

    Where it was not measured, the first of the latest steps that were examined.
    """
    known = run.series("grad_norm", name).finite
    examined = run.part("timeline").get("steps") or [0]
    return _falls_at(known) or int(examined[-_HALF:][0])


def _falls_at(norms: Curve) -> int:
    if not len(norms):
        return 0
    last = int(np.flatnonzero(norms.values >= 1e-3 * norms.values.max())[-1])
    return int(norms.steps[last + 1]) if last + 1 < len(norms) else 0


def _through_time(run: Observations, limits: Thresholds) -> Finding | None:
    """A recurrent module whose first calls get no gradient, in a run that does not learn."""
    if run.learning or run.first_nonfinite_loss is not None:
        return None
    for row in run.part("through_time") or ():
        latest, earliest = _median(row["latest"]), _median(row["earliest"])
        ratio = earliest / latest
        if row["latest"] and row["earliest"] and ratio < limits["time"]:
            return Finding(
                code=CODE,
                level="warning",
                title=f"Hardly any gradient reaches the first of the {row['calls']} time steps.",
                confidence=0.8,
                module=row["module"],
                evidence=(
                    Evidence(
                        statistic="gradient at the first over that at the last time step",
                        value=ratio,
                        threshold=limits["time"],
                        side="below",
                        quantity="output_grad_norm",
                        subject=row["module"],
                        last=run.last_step,
                        drawing=as_bars(
                            [("first time step", earliest), ("last time step", latest)],
                            "gradient size (rms)",
                            (latest * limits["time"], "limit"),
                            log=True,
                            marked=("first time step",),
                        ),
                    ),
                ),
                explanation=(
                    "A recurrent module multiplies the gradient by its weights and the derivative "
                    "of its activation at every time step. What happened early cannot be learned."
                ),
                reference="Hochreiter 1991; Pascanu et al. 2013, arXiv:1211.5063",
                remedies=(
                    Remedy(text="Use gates: LSTM or GRU.", code="nn.LSTM(inputs, width)"),
                    Remedy(text="Shorten the sequences, or add attention or skips over time."),
                ),
            )
    return None


def _alive(row: dict[str, Any]) -> bool:
    values = [value for value in row["grad_rms"] if value]
    return len(values) >= 3 and 2 * len(values) >= len(row["grad_rms"])


def _measured_late(row: dict[str, Any]) -> bool:
    return any(value is not None for value in row["grad_rms"][-_HALF:])


def _median(values: list[float | None]) -> float:
    finite = [value for value in values if value is not None and value > 0]
    return float(np.median(finite)) if finite else _NOTHING


def _told(size: float) -> float:
    return 0.0 if size == _NOTHING else size


def _converged(run: Observations) -> bool:
    """A loss near zero leaves no gradient, and needs none."""
    end, floor = run.loss_at_end(), run.floor
    return floor is not None and end < 0.05 * floor
