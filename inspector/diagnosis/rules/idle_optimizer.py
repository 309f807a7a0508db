"""An optimizer that has nothing to step with, or makes no step: part of ``frozen_parameters``.

Statistics: (a) every parameter in the optimizer is without gradient, or has one of zeros, at each
examined step while the loss is not zero: ``backward()`` is missing, or ``zero_grad()`` stands
between it and ``step()`` (exact); (b) forward passes without a single step of the optimizer.
Threshold: four examined steps; 50 passes.
Source: PyTorch forums ("my model does not learn"); own.
False alarms: (b) accumulation over more than 50 batches, until its first step.
"""

from __future__ import annotations

from typing import Any

from inspector.diagnosis.drawing import as_bars
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations

_ORDER = "optimizer.zero_grad(); loss.backward(); optimizer.step()"


def idle_optimizer(run: Observations, rows: list[dict[str, Any]], passes: float) -> Finding | None:
    """What keeps all parameters where they are, if something does.

    Args:
        rows: parameters that were examined in enough steps.
        passes: forward passes without a step from which on it is a finding.
    """
    held = [row for row in rows if row["in_optimizer"] and row["ever_required_grad"]]
    without = [row for row in held if not row["steps_with_gradient"]]
    zeros = [row for row in held if row["steps_with_gradient"] == row["steps_with_zero_gradient"]]
    if held and len(without) == len(held):
        return _finding(
            "No gradient to step with", 0.95,
            "No parameter has a gradient when the optimizer makes its step.",
            "parameters in the optimizer without any gradient", len(held), run,
            Remedy(text="Call backward() between zero_grad() and step().", code=_ORDER),
        )  # fmt: skip
    if held and len(zeros) == len(held) and run.first_loss != 0:
        return _finding(
            "No gradient to step with", 0.85,
            "Every gradient is zero when the optimizer makes its step.",
            "parameters in the optimizer whose gradient is always zero", len(held), run,
            Remedy(text="Clear gradients before backward(), not after it.", code=_ORDER),
        )  # fmt: skip
    seen = int(run.part("order").get("batches_seen") or 0)
    waiting = any(row["in_optimizer"] and row["requires_grad"] for row in run.parameters)
    if waiting and seen >= passes and int(run.structure.get("step", 0)) < 0:
        return _finding(
            "Optimizer makes no step", 0.9,
            f"{seen} forward passes, and not one step of the optimizer.",
            "forward passes without a step", seen, run,
            Remedy(text="Call step() of the optimizer that watch() was given, after backward().",
                   code=_ORDER),
        )  # fmt: skip
    return None


def _finding(
    heading: str,
    confidence: float,
    title: str,
    fact: str,
    count: int,
    run: Observations,
    remedy: Remedy,
) -> Finding:
    held = [row for row in run.parameters if row["in_optimizer"]]
    moved = sum(any(row["update_ratio"]) for row in held)  # weight decay needs no gradient
    drawing = as_bars(
        [("in the optimizer", float(len(held))), ("that ever moved", float(moved))],
        "parameters",
        marked=("that ever moved",),
    )
    return Finding(
        code="frozen_parameters",
        level="critical",
        title=title,
        heading=heading,
        confidence=confidence,
        evidence=(Evidence(statistic=fact, value=float(count), drawing=drawing),),
        explanation=(
            "backward() puts gradients into .grad, step() reads them there, zero_grad() takes them "
            "away. In any other order, or where one of them is missing, step() finds nothing: all "
            "weights keep their initial values, and no error is raised."
        ),
        reference="PyTorch: torch.optim, taking an optimization step",
        remedies=(remedy,),
    )
