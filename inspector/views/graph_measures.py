"""What the boxes of a graph can be coloured by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from inspector.numerals import short as written

MeasureKey = Literal["gradient", "memory", "time"]
DEPTH = 1e-12  # the colour scale spans twelve decades at most


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of each box.

    Attributes:
        title: for people.
        unit: of the legend's numbers.
        where: what was measured and at which moment, as a sentence.
        adds_up: whether a fold's number is the sum over what is inside.
    """

    key: MeasureKey
    title: str
    unit: str
    where: str
    adds_up: bool


MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        Measure(
            "gradient", "Gradient norm", "L2 norm",
            "Of the gradient that arrives at the box's output, as the engine visits it: before "
            "clipping, still scaled under mixed precision.", False,
        ),
        Measure(
            "memory", "Saved memory", "bytes",
            "Of tensors saved for the backward pass, at the end of the forward pass; parameters "
            "are not counted, a tensor saved twice is counted twice.", True,
        ),
        Measure(
            "time", "Time", "µs",
            "Of one captured step, with hooks at every node: to be compared, not to be added up. "
            "A node's own time has about a microsecond of the way into the hooks in it.", True,
        ),
    )
}  # fmt: skip


def node_value(node: dict[str, Any], measure: str) -> float | None:
    """The measure of one node; None where it was not measured."""
    field = {"gradient": "grad_norm", "memory": "saved_bytes", "time": "backward_us"}[measure]
    value = node.get(field)
    return None if value is None else float(value)


def together(values: Iterable[float | None], measure: str) -> float | None:
    """The number of a box: the norm of all gradients together, else the sum; None of none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return sum(known) if MEASURES[measure].adds_up else math.hypot(*known)


def scale(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Ends of the logarithmic scale: least and largest positive value, twelve decades at most."""
    known = [value for value in values if value]
    if not known:
        return None, None
    return max(min(known), max(known) * DEPTH), max(known)


def words(value: float | None, measure: str) -> str:
    """The number as it stands in a box, with its unit; "" for none."""
    if value is None:
        return ""
    if measure == "gradient":
        return f"‖grad‖ {number(value)}"
    return f"{size(value)} saved" if measure == "memory" else duration(value)


def short(value: float, measure: str) -> str:
    """The number as it stands at the legend's ends."""
    return {"gradient": number, "memory": size, "time": duration}[measure](value)


def number(value: float) -> str:
    """Three significant digits."""
    return written(value, 3)


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(micros: float) -> str:
    """Microseconds for people."""
    for unit in ("µs", "ms"):
        if micros < 999.5:
            return f"{written(micros, 3)} {unit}"
        micros /= 1000
    return f"{written(micros, 3)} s"
