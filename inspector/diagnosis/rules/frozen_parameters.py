"""Parameters that do not learn: forgotten, frozen or cut off.

Statistics, all exact: (a) a parameter that requires a gradient, gets one, and is in no optimizer
nor changed by anything else; (b) a parameter in the optimizer whose module runs but that never
gets a gradient (a ``detach()`` or ``no_grad()`` in between); (c) ``requires_grad=False`` in a
module behind trainable ones, or although the optimizer holds it; (d) a parameter group with
learning rate 0; (e) a backward pass that was refused because nothing requires a gradient;
(f) a parameter in the optimizer that got gradients, and none in a whole later burst of steps;
(g) an optimizer that has nothing to step with (``idle_optimizer``).
Source: own (no runtime tool has it); UnchangedTensor of SageMaker Debugger sees the effect.
False alarms: a backbone frozen on purpose (frozen modules before trainable ones), adapters and
constant tables are only notes; (f) training that freezes on purpose along the way, without taking
the parameters from the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from inspector.diagnosis.drawing import Drawing, as_bars
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.rules.idle_optimizer import idle_optimizer
from inspector.events import Level, RunFailed

CODE = "frozen_parameters"
Rows = list[dict[str, Any]]
_ADD = Remedy(
    text="Give the optimizer all parameters.",
    code="torch.optim.SGD(model.parameters(), lr=lr)",
    unfreezes=True,
)
_UNFREEZE = Remedy(text="Unfreeze it.", code="module.requires_grad_(True)", unfreezes=True)
_ATTACH = Remedy(
    text="Remove detach(), .data, .item() or no_grad() between this module and the loss.",
)


@register(CODE, steps=4, passes=50)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    refused = _refused(run)
    if refused:
        yield refused
        return
    rows = [row for row in run.parameters if _seen(row) >= limits["steps"]]
    idle = idle_optimizer(run, rows, limits["passes"])
    if idle is not None:
        yield idle
        return
    for found in (
        _unregistered(run), _forgotten(run, rows), _cut_off(run, rows), _frozen(run, rows),
        _at_rest(rows), _stopped(run),
    ):  # fmt: skip
        if found is not None:
            yield found


def _seen(row: dict[str, Any]) -> int:
    return int(row["steps_with_gradient"] + row["steps_without_gradient"])


def _refused(run: Observations) -> Finding | None:
    for step, event in run.events_of(RunFailed):
        if "does not require grad" in event.message:
            frame = event.frames[-1] if event.frames else None
            return _finding(
                "critical", 0.96, "The loss is cut off from every parameter: backward is refused.",
                None, event.message, 1.0, _ATTACH, step=step,
                file=frame.file if frame else "", line=frame.line if frame else 0,
            )  # fmt: skip
    return None


def _unregistered(run: Observations) -> Finding | None:
    shapes = list(run.part("strangers") or ())
    if not shapes:
        return None
    return _finding(
        "warning", 0.93,
        f"The forward pass uses {len(shapes)} parameters that neither model nor optimizer knows.",
        None, "parameters used but not registered", len(shapes),
        Remedy(text="Keep modules in nn.ModuleList or nn.ModuleDict, not in a list or dict.",
               code="self.blocks = nn.ModuleList(blocks)"),
        drawing=as_bars(
            [("in the model", float(len(run.parameters))), ("unknown to it", float(len(shapes)))],
            "parameters that the forward pass uses", marked=("unknown to it",),
        ),
    )  # fmt: skip


def _forgotten(run: Observations, rows: Rows) -> Finding | None:
    found = [
        row
        for row in rows
        if row["ever_required_grad"]
        and not row["in_optimizer"]
        and row["foreign_updates"] < 2
        and row["steps_with_gradient"] > 0
    ]
    if not found:
        return None
    share = _share(found, run)
    return _finding(
        "critical" if share > 0.5 else "warning", 0.95,
        f"{_names(found)} in no optimizer: gradients are computed, nothing is learned.",
        found[0], "parameters with a gradient that no optimizer steps", len(found), _ADD,
        rows=rows, marked=found,
    )  # fmt: skip


def _cut_off(run: Observations, rows: Rows) -> Finding | None:
    never = [
        row
        for row in rows
        if row["requires_grad"] and row["in_optimizer"] and not row["steps_with_gradient"]
    ]
    called = {*run.call_order, *(run.part("ran") or ()), ""}
    ran = [row for row in never if row["module"] in called]
    if ran:
        return _finding(
            "warning", 0.9,
            f"{_names(ran)} cut off: the optimizer holds them, but no gradient arrives.",
            ran[0], "parameters in the optimizer without any gradient", len(ran), _ATTACH,
            rows=rows, marked=ran,
        )  # fmt: skip
    if never:
        return _finding(
            "note", 0.4, f"{_names(never)} never used in the forward pass.",
            never[0], "parameters of modules that never run", len(never),
            Remedy(text="Call the module in forward(), or remove it."), rows=rows, marked=never,
        )  # fmt: skip
    return None


def _frozen(run: Observations, rows: Rows) -> Finding | None:
    order = run.call_order
    rows = [row for row in rows if not _inside(row["module"], run.set_on_purpose("frozen"))]
    found = [row for row in rows if not row["ever_required_grad"] and len(row["shape"]) >= 2] or [
        row for row in rows if not row["ever_required_grad"] and row["in_optimizer"]
    ]
    if not found:
        return None
    trainable = [order.get(row["module"], math.inf) for row in run.weights]
    first_trainable = min(trainable, default=math.inf)
    # Nothing that learns goes into a table, wherever its rows are added.
    behind = [
        row
        for row in found
        if order.get(row["module"], -1) > first_trainable
        and not row["module_type"].endswith("Embedding")
    ]
    # Who tells the optimizer what to leave out has frozen it on purpose.
    mistaken = [row for row in behind if row["in_optimizer"]]
    shown = mistaken or [row for row in rows if not row["ever_required_grad"]]
    return _finding(
        "warning" if mistaken else "note",
        0.85 if mistaken else 0.35,
        f"{_names(shown)} frozen"
        + (" although modules before learn." if mistaken else "; fine if on purpose."),
        shown[0], "parameters with requires_grad=False", len(shown), _UNFREEZE,
        rows=rows, marked=shown,
    )  # fmt: skip


def _stopped(run: Observations) -> Finding | None:
    """Parameters that learned until somebody froze them, or cut the graph behind them."""
    wanted = run.set_on_purpose("frozen")
    found = [
        row
        for row in run.parameters
        if row.get("stopped") and row["in_optimizer"] and not _inside(row["module"], wanted)
    ]
    if not found:
        return None
    frozen = [row for row in found if not row["stopped"]["required"]]
    shown = frozen or sorted(found, key=lambda row: -run.call_order.get(row["module"], -1))
    after, seen = shown[0]["stopped"]["after"], shown[0]["stopped"]["seen"]
    step = _last_gradient(run, shown[0]["name"], after, seen)
    what = "frozen" if frozen else "cut off from the loss"
    return _finding(
        "warning", 0.88,
        f"{_names(shown)} {what} since step {step}: gradients arrived before, none does now.",
        shown[0], "parameters in the optimizer that get gradients no more", len(shown),
        _UNFREEZE if frozen else _ATTACH, rows=run.parameters, marked=shown, step=step,
    )  # fmt: skip


def _last_gradient(run: Observations, name: str, after: int, seen: int) -> int:
    """The first step without a gradient, as near as what was measured between bursts tells."""
    got = run.series("grad_norm", name).between(after + 1, seen - 1).finite.steps
    last = int(got[-1]) if len(got) else after
    measured = run.series("total_grad_norm").between(last + 1, seen).steps
    return int(measured[0]) if len(measured) else seen


def _inside(module: str, paths: Collection[str]) -> bool:
    return any(module == path or module.startswith(f"{path}.") for path in paths)


def _at_rest(rows: Rows) -> Finding | None:
    rates = [row["lr"] for row in rows if row["in_optimizer"]]
    resting = [row for row in rows if row["in_optimizer"] and row["lr"] == 0]
    if not resting or len(resting) == len(rates) or any(_moved(row) for row in resting):
        return None
    return _finding(
        "warning", 0.7, f"{_names(resting)} in a group with learning rate 0.",
        resting[0], "parameters with learning rate 0", len(resting),
        Remedy(text="Give the group a learning rate."), rows=rows, marked=resting,
    )  # fmt: skip


def _moved(row: dict[str, Any]) -> bool:
    return any(ratio for ratio in row["update_ratio"])


def _share(found: Rows, run: Observations) -> float:
    total = sum(math.prod(row["shape"]) for row in run.parameters) or 1
    return sum(math.prod(row["shape"]) for row in found) / total


def _names(rows: Rows) -> str:
    first = rows[0]["name"]
    more = len(rows) - 1
    return f"{first} is" if not more else f"{first} and {more} more parameters are"


def _moves(rows: Rows | None, marked: Rows | None) -> Drawing:
    """How far each parameter moves in a step; those that the finding is about stay at zero."""
    blamed = [row["name"] for row in marked or ()]
    shown = [row for row in rows or () if row["name"] in blamed[:8] or len(row["shape"]) >= 2]
    return as_bars(
        [(row["name"], _median(row["update_ratio"])) for row in shown],
        "median update ratio ‖Δw‖/‖w‖",
        marked=blamed,
        of=len(rows or ()),
    )


def _median(values: list[float | None]) -> float:
    """Nothing measured is no movement."""
    return float(np.median([value or 0.0 for value in values])) if values else 0.0


def _finding(
    level: Level,
    confidence: float,
    title: str,
    row: dict[str, Any] | None,
    fact: str,
    count: float,
    remedy: Remedy,
    *,
    step: int = 0,
    file: str = "",
    line: int = 0,
    rows: Rows | None = None,
    marked: Rows | None = None,
    drawing: Drawing | None = None,
) -> Finding:
    return Finding(
        code=CODE,
        level=level,
        title=title,
        confidence=confidence,
        module=row["module"] if row else None,
        step=step,
        file=file,
        line=line,
        evidence=(
            Evidence(
                statistic=fact,
                value=float(count),
                quantity="update_ratio" if row else "",
                subject=row["name"] if row else "",
                drawing=drawing or _moves(rows, marked),
            ),
        ),
        explanation=(
            "A parameter learns only if it requires a gradient, is connected to the loss, and is "
            "held by an optimizer. If one of the three is missing it keeps its random initial "
            "value, silently: the rest learns around it."
        ),
        reference="PyTorch: Autograd mechanics; SageMaker Debugger UnchangedTensor",
        remedies=(remedy,),
    )
