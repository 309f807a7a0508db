"""The component that draws a folded graph: Graphviz runs in a worker of the browser."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from inspector.server.assets import PREFIX
from inspector.ui.components import component
from inspector.views.graph import Box, FoldedGraph, Frame

LAYOUT_LIMIT_MS = 2000

_component = component("graph", "autograd-graph", "graph.js", styles=("graph.css",))


@dataclass(frozen=True, slots=True)
class GraphEvent:
    """What happened in the picture: a box was clicked, or its layout took too long.

    Attributes:
        key: the box, see ``Box.key``; "" when the layout took too long.
        toggle: whether a fold shall open or close.
    """

    key: str
    toggle: bool = False
    too_slow: bool = False


def graph_picture(
    folded: FoldedGraph,
    dot: str,
    *,
    graph: str,
    file: str,
    chosen: str | None,
    height: int,
    key: str,
    tour: tuple[str, ...] = (),
    tour_name: str = "",
    reveal: tuple[str, int] | None = None,
) -> GraphEvent | None:
    """Draws the picture and returns what was done in it just now, else None.

    Args:
        dot: what ``to_dot`` made of ``folded``.
        graph: identity of what is drawn; the zoom is kept as long as it stays the same.
        file: name of a downloaded picture, without ending.
        chosen: key of the box that is marked.
        height: of the picture, in CSS pixels.
        key: unique on the page.
        tour: keys of boxes that a button jumps to, one after the other.
        tour_name: what they are.
        reveal: a box to be moved to the middle, and the number of that request: each is
            followed once.
    """
    picture = hashlib.sha256(dot.encode()).hexdigest()[:16]
    data = {
        "id": picture,
        "graph": graph,
        "dot": dot,
        "items": _items(folded),
        "first": next((box.key for box in folded.boxes()), None),
        "chosen": chosen,
        "height": height,
        "limit": LAYOUT_LIMIT_MS,
        "name": file,
        "assets": PREFIX,
        "tour": list(tour),
        "tour_name": tour_name,
        "reveal": None if reveal is None else {"key": reveal[0], "number": reveal[1]},
    }
    result = _component(key=key, data=data, on_clicked_change=_nothing, on_too_slow_change=_nothing)
    if result.too_slow == picture:
        return GraphEvent("", too_slow=True)
    clicked = result.clicked
    if not isinstance(clicked, dict) or clicked.get("graph") != graph:
        return None
    return GraphEvent(str(clicked.get("key", "")), toggle=bool(clicked.get("toggle")))


def _items(folded: FoldedGraph) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    stack: list[Frame | Box] = list(folded.children)
    while stack:
        item = stack.pop()
        if isinstance(item, Frame):
            items.append({"id": item.id, "key": item.key, "fold": True, "tip": item.title})
            stack += item.children
            continue
        tip = "\n".join(filter(None, (item.title, item.subtitle, item.shapes)))
        items.append(
            {
                "id": item.id, "key": item.key, "fold": item.kind == "fold", "tip": tip,
                "words": item.words,
            }
        )  # fmt: skip
    return items


def _nothing() -> None:
    """The triggers need callbacks; their values are read from the result."""
