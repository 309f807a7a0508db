"""What a snippet draws, as plain data: the child collects it, the page makes figures of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_PLOTS = 8
MOST_POINTS = 20_000

_collected: list[dict[str, Any]] = []


def lines(
    series: Mapping[str, Any],
    *,
    x: Any = None,
    title: str = "",
    x_title: str = "",
    y_title: str = "",
    log: bool = False,
) -> None:
    """Draws curves.

    Args:
        series: name → values (sequence, array or tensor of one dimension).
        x: where the values lie; 0, 1, 2, … when left out.
        log: logarithmic y axis.
    """
    _collect(
        "lines",
        series={str(name): _flat(values) for name, values in series.items()},
        x=None if x is None else _flat(x),
        title=title, x_title=x_title, y_title=y_title, log=log,
    )  # fmt: skip


def vectors(arrows: Mapping[str, Any], *, title: str = "") -> None:
    """Draws named arrows from the origin; each is a pair of numbers."""
    _collect("vectors", arrows={str(n): _flat(arrow) for n, arrow in arrows.items()}, title=title)


def heatmap(matrix: Any, *, title: str = "", x_title: str = "column", y_title: str = "row") -> None:
    """Draws a matrix as colours, the first row on top."""
    _collect("heatmap", matrix=_plain(matrix), title=title, x_title=x_title, y_title=y_title)


def paths(
    tracks: Mapping[str, Any],
    *,
    surface: Callable[[float, float], Any] | None = None,
    points: Mapping[str, Any] | None = None,
    title: str = "",
) -> None:
    """Draws tracks on a plane, over the contour lines of a surface.

    Args:
        tracks: name → sequence of pairs (x, y).
        surface: height at a point of the plane; drawn around the tracks and points.
        points: name → one pair or a sequence of pairs, drawn as marks.
    """
    routes = {str(name): _pairs(track) for name, track in tracks.items()}
    marks = {str(name): _pairs(places) for name, places in (points or {}).items()}
    height = None
    if surface is not None:
        everything = [p for group in (routes, marks) for pairs in group.values() for p in pairs]
        height = _sampled(surface, everything)
    _collect("paths", tracks=routes, points=marks, surface=height, title=title)


def document(kind: str, content: Mapping[str, Any]) -> None:
    """Hands a JSON-able document to the page that ran the snippet, beside what was drawn."""
    _collect(kind, document=dict(content))


def take() -> list[dict[str, Any]]:
    """What was drawn since the last call, oldest first, and forgets it."""
    drawn, _collected[:] = list(_collected), []
    return drawn


def _collect(kind: str, **fields: Any) -> None:
    if len(_collected) < MOST_PLOTS:
        _collected.append({"kind": kind, **fields})


def _sampled(
    surface: Callable[[float, float], Any], around: Sequence[Sequence[float]], cells: int = 48
) -> dict[str, Any]:
    axes = []
    for axis in (0, 1):
        values = [point[axis] for point in around if abs(point[axis]) < 1e6]
        low, high = min(values, default=-1.0), max(values, default=1.0)
        room = 0.12 * (high - low) or 1.0
        low, high = low - room, high + room
        axes.append([low + (high - low) * i / (cells - 1) for i in range(cells)])
    z = [[float(surface(x, y)) for x in axes[0]] for y in axes[1]]
    return {"x": axes[0], "y": axes[1], "z": z}


def _plain(value: Any) -> Any:
    """Nested lists of a tensor, an array or a sequence that may hold tensors."""
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _flat(values: Any) -> list[float]:
    plain = _plain(values)
    if not isinstance(plain, list) or any(isinstance(item, list) for item in plain):
        raise ValueError(f"Expected one row of numbers to draw, but got {type(values).__name__}.")
    return [float(item) for item in plain[:MOST_POINTS]]


def _pairs(values: Any) -> list[list[float]]:
    plain = _plain(values)
    if isinstance(plain, list) and len(plain) == 2 and not isinstance(plain[0], list):
        plain = [plain]
    if not isinstance(plain, list) or any(
        not isinstance(pair, list) or len(pair) != 2 for pair in plain
    ):
        raise ValueError("Expected pairs (x, y) to draw, such as [[0, 1], [2, 3]].")
    return [[float(x), float(y)] for x, y in plain[:MOST_POINTS]]
