"""Two linear modules follow each other with nothing in between.

Statistic: in the autograd graph, a matrix product or convolution whose input comes, through views,
dropout and batch normalisation only, from another one. Exact.
Later: such a pair in a burst of steps, where the first pass had an activation in between.
Source: NeuraLint, UMLAUT (both static, Keras).
False alarms: a factorised product with a narrow middle (low rank, linear bottleneck, LoRA) is only
a note, depthwise-separable convolutions are left out; purely linear models are told as a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.drawing import Drawing, as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "missing_activation"
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


@register(CODE)
def check(run: Observations, _limits: Thresholds) -> Iterator[Finding]:
    pairs = list(run.part("linear_pairs") or ())
    wide = [pair for pair in pairs if not _is_narrow(pair["widths"])]
    step = 0
    if not wide:
        step, later = _since(run)
        pairs, wide = (later, later) if later else (pairs, wide)
    for pair in (wide or pairs)[:3]:
        yield Finding(
            code=CODE,
            level="warning" if wide else "note",
            title=f"Module {pair['first']} feeds {pair['second']} without an activation in between"
            + (f" since step {step}." if step else "."),
            confidence=0.85 if wide else 0.35,
            module=pair["second"],
            step=step,
            evidence=(
                Evidence(
                    statistic="linear modules directly after another: "
                    + " · ".join(f"{one['first']} → {one['second']}" for one in pairs[:4]),
                    drawing=_order(run, pairs),
                ),
            ),
            explanation=(
                "Two linear maps in a row are one linear map: the second module adds parameters "
                "but no expressive power."
                + ("" if wide else " With a narrow middle this may be a factorisation on purpose.")
            ),
            reference="NeuraLint (Nikanjam et al. 2021); UMLAUT (Schoop et al. 2021)",
            remedies=remedies(CODE),
        )


def _since(run: Observations) -> tuple[int, list[dict[str, Any]]]:
    """Pairs that stand together since a step, as activations went; and that step."""
    for form in run.part("forms") or ():
        was, now = form["was"], form["now"]
        known = {(pair["first"], pair["second"]) for pair in was["pairs"]}
        pairs = [p for p in now["pairs"] if (p["first"], p["second"]) not in known]
        if pairs and sum(now["functions"].values()) < sum(was["functions"].values()):
            return run.began(form["after"], form["seen"]), pairs
    return 0, []


def _order(run: Observations, pairs: list[dict[str, Any]]) -> Drawing:
    """The modules in the order of their calls; those that follow each other stand out."""
    blamed = {path for pair in pairs for path in (pair["first"], pair["second"])}
    rows = sorted(
        (row for row in run.modules if row["path"] in run.call_order),
        key=lambda row: run.call_order[row["path"]],
    )
    at = next((i for i, row in enumerate(rows) if row["path"] in blamed), 0)
    shown = [row for row in rows[max(at - 4, 0) : at + 14] if row["type"] not in _CONTAINERS]
    return as_bars(
        [(f"{row['path']} · {row['type']}", float(_is_linear(row))) for row in shown],
        "linear in its input (1) or not (0), in call order",
        marked=[f"{row['path']} · {row['type']}" for row in shown if row["path"] in blamed],
    )


def _is_linear(row: dict[str, Any]) -> bool:
    return str(row["type"]).startswith(("Linear", "Conv", "Bilinear", "LazyLinear", "LazyConv"))


def _is_narrow(widths: list[Any]) -> bool:
    """Whether the middle is narrower than both ends."""
    return len(widths) == 3 and widths[1] < min(widths[0], widths[2])
