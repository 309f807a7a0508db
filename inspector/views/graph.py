"""The autograd graph folded to a picture of a bounded number of boxes (no torch needed)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inspector.views.graph_boxes import Box, FoldedGraph, Frame, Side
from inspector.views.graph_forward import Seen, forward_document, seen_modules
from inspector.views.graph_measures import MeasureKey, node_value, scale, together
from inspector.views.graph_paths import born
from inspector.views.graph_tree import Fold, arrange

LIMIT = 300
FIT = 40  # boxes of the opening view

__all__ = ["Box", "FoldedGraph", "Frame", "GraphTree", "Side", "fold"]


@dataclass(slots=True)
class GraphTree:
    """One side of a captured graph, arranged once and folded often.

    The forward side holds modules with shapes and operations under the names of their forward
    pass, without parameters; the folds of both sides have the same keys.
    """

    captured: dict[str, Any]
    side: Side = "backward"
    document: dict[str, Any] = field(init=False)
    top: list[Fold | int] = field(init=False)
    folds: dict[str, Fold] = field(init=False)
    seen: dict[str, Seen] = field(init=False)

    def __post_init__(self) -> None:
        forward = self.side == "forward"
        self.document = forward_document(self.captured) if forward else self.captured
        self.seen = seen_modules(self.document) if forward else {}
        self.top = arrange(self.document)
        self.folds = {fold.key: fold for fold in _all_folds(self.top)}

    def opens(self, fold: Fold) -> bool:
        """Whether a fold has anything to open: one operation alone says less than its module."""
        alone = len(fold.children) == 1 and isinstance(fold.children[0], int)
        return not (self.side == "forward" and fold.kind == "module" and alone and fold.key != "m:")

    def opening(self, fit: int = FIT) -> frozenset[str]:
        """The folds that are open at first, so that about ``fit`` boxes are seen.

        Modules made of modules open level by level; single operations are shown only when all of
        them fit. Modules that were called many times stay closed.
        """
        opened: set[str] = set()
        shown: list[Fold | int] = self.top
        while True:
            closed = [i for i in shown if isinstance(i, Fold) and _opens_itself(i)]
            outer = [fold for fold in closed if any(isinstance(c, Fold) for c in fold.children)]
            level = outer or closed
            after = [
                inner
                for item in shown
                for inner in (item.children if isinstance(item, Fold) and item in level else [item])
            ]
            # The model itself is always open: one box says nothing.
            if not level or (len(after) > fit and opened):
                return frozenset(opened)
            opened.update(fold.key for fold in level)
            shown = after

    def fold(
        self,
        expanded: Iterable[str] | None = None,
        *,
        limit: int = LIMIT,
        measure: MeasureKey = "gradient",
    ) -> FoldedGraph:
        """The picture with these folds open, and closed where it would pass ``limit`` boxes."""
        wanted = self.opening() if expanded is None else frozenset(expanded)
        opened, refused = self._within(wanted, limit)
        notes = list(self.document["notes"])
        if refused:
            names = ", ".join(self.folds[key].title for key in refused[:3])
            notes.append(
                f"{names} stays folded: more than {limit} boxes would be drawn. "
                "Close another fold first."
            )
        return _Picture(self, opened, measure).draw(self.top, notes)

    def _within(self, wanted: frozenset[str], limit: int) -> tuple[frozenset[str], list[str]]:
        opened: set[str] = set()
        refused = []
        count = len(self.top)
        queue = [item for item in self.top if isinstance(item, Fold)]
        for fold in queue:
            if fold.key not in wanted or not self.opens(fold):
                continue
            if count - 1 + len(fold.children) > limit:
                refused.append(fold.key)
                continue
            count += len(fold.children) - 1
            opened.add(fold.key)
            queue += [child for child in fold.children if isinstance(child, Fold)]
        return frozenset(opened), refused

    def fewer(self, expanded: Iterable[str]) -> frozenset[str]:
        """The folds that remain open after closing the innermost ones: a smaller picture."""
        opened = frozenset(expanded) & self.folds.keys()
        return frozenset(
            key
            for key in opened
            if any(
                isinstance(child, Fold) and child.key in opened
                for child in self.folds[key].children
            )
        )


class _Picture:
    """Collects what one picture consists of."""

    def __init__(self, tree: GraphTree, opened: frozenset[str], measure: MeasureKey) -> None:
        self._tree = tree
        self._nodes = tree.document["nodes"]
        self._edges = tree.document["edges"]
        self._opened = opened
        self._measure = measure
        self._by_module = tree.side == "forward" and measure == "time"
        self._box_of = [-1] * len(self._nodes)
        self._items: list[Fold | int] = []  # what box number i stands for
        self._frames = 0

    def draw(self, top: list[Fold | int], notes: list[str]) -> FoldedGraph:
        self._assign(top)
        counts, outputs, births = self._links()
        boxes = [
            self._box(number, outputs[number], number in births)
            for number in range(len(self._items))
        ]
        low, high = self._scale(boxes)
        implied = {
            (self._box_of[a], self._box_of[b]) for a, b in self._tree.document.get("implied", ())
        }
        return FoldedGraph(
            children=self._nest(top, iter(boxes)),
            edges=tuple((f"n{a}", f"n{b}", count) for (a, b), count in counts.items()),
            expanded=self._opened,
            low=low,
            high=high,
            total=len(self._tree.captured["nodes"]),
            notes=tuple(notes),
            measure=self._measure,
            side=self._tree.side,
            placed={
                node["id"]: f"n{box}" for node, box in zip(self._nodes, self._box_of, strict=True)
            },
            implied=frozenset((f"n{a}", f"n{b}") for a, b in implied if a != b),
        )

    def _scale(self, boxes: list[Box]) -> tuple[float | None, float | None]:
        shown = [box.value for box in boxes]
        if self._by_module:
            return scale([*shown, *(seen.micros for seen in self._tree.seen.values())])
        single = [node_value(node, self._measure) for node in self._nodes]
        return scale(single if self._measure == "gradient" else [*single, *shown])

    def _assign(self, items: list[Fold | int]) -> None:
        for item in items:
            if isinstance(item, Fold) and item.key in self._opened:
                self._assign(item.children)
                continue
            number = len(self._items)
            self._items.append(item)
            for member in [item] if isinstance(item, int) else item.members():
                self._box_of[member] = number

    def _links(self) -> tuple[dict[tuple[int, int], int], list[set[int]], set[int]]:
        """Edges between boxes, the nodes at each box's outputs, and where non-finite is born."""
        counts: dict[tuple[int, int], int] = {}
        outputs: list[set[int]] = [set() for _ in self._items]
        consumed: set[int] = set()
        for producer, consumer in self._edges:
            consumed.add(producer)
            a, b = self._box_of[producer], self._box_of[consumer]
            if a != b:
                counts[a, b] = counts.get((a, b), 0) + 1
                outputs[a].add(producer)
        for position in range(len(self._nodes)):
            if position not in consumed:
                outputs[self._box_of[position]].add(position)
        return counts, outputs, {self._box_of[place] for place in born(self._tree.document)}

    def _box(self, number: int, outputs: set[int], born: bool) -> Box:
        item = self._items[number]
        members = [item] if isinstance(item, int) else list(item.members())
        nodes = [self._nodes[member] for member in members]
        marks = {node["nonfinite"] for node in nodes} - {""}
        norm = together((self._nodes[output]["grad_norm"] for output in outputs), "gradient")
        names = {(node["op"], node["module"], node["parameter"]) for node in nodes}
        words = {word for name in names for word in name if word}
        shapes = ""
        if isinstance(item, Fold):
            key, title, subtitle, kind = item.key, item.title, item.subtitle, "fold"
            words |= {title, subtitle}
            shapes = seen.shapes if (seen := self._tree.seen.get(item.key)) else ""
            if not self._tree.opens(item):
                kind = "module"
        else:
            key, title, subtitle, kind = self._loose(self._nodes[item])
            words.add(title)
        if nodes and all(node.get("absent") for node in nodes):
            subtitle = " · ".join(filter(None, (subtitle, "not in the autograd graph")))
        nonfinite = "nan" if "nan" in marks else next(iter(marks), "")
        return Box(
            f"n{number}", key, title, subtitle, kind, len(members),
            norm, nonfinite, born, "\n".join(sorted(words)).lower(),
            value=norm if self._measure == "gradient" else self._value(item, nodes),
            shapes=shapes,
            changes=_changes(nodes),
        )  # fmt: skip

    def _value(self, item: Fold | int, nodes: list[dict[str, Any]]) -> float | None:
        if not self._by_module:
            return together((node_value(node, self._measure) for node in nodes), self._measure)
        if isinstance(item, int):
            return None
        if seen := self._tree.seen.get(item.key):
            return seen.micros
        # A range of calls or of modules; operations of their own have no time of the forward pass.
        inner = (self._tree.seen.get(c.key) for c in item.children if isinstance(c, Fold))
        return together((seen.micros for seen in inner if seen), "time")

    def _loose(self, node: dict[str, Any]) -> tuple[str, str, str, str]:
        size = "×".join(str(length) for length in node["shape"]) if node["shape"] else ""
        if node["shape"] == []:
            size = "scalar"
        key = f"o:{node['id']}"
        if node["accumulated"] is not None:
            return key, node["parameter"] or "leaf tensor", size, "parameter"
        return key, node["op"], size, "op"

    def _nest(self, items: list[Fold | int], boxes: Iterator[Box]) -> tuple[Frame | Box, ...]:
        children: list[Frame | Box] = []
        for item in items:
            if isinstance(item, Fold) and item.key in self._opened:
                number = self._frames
                self._frames += 1
                inner = self._nest(item.children, boxes)
                shapes = seen.shapes if (seen := self._tree.seen.get(item.key)) else ""
                title = " · ".join(filter(None, (item.title, item.subtitle, shapes)))
                children.append(Frame(f"c{number}", item.key, title, inner))
            else:
                children.append(next(boxes))
        return tuple(children)


def _changes(nodes: list[dict[str, Any]]) -> tuple[tuple[str, int], ...]:
    if not nodes or "mark" not in nodes[0]:
        return ()
    return tuple(sorted(Counter(node["mark"] for node in nodes if node["mark"]).items()))


def _opens_itself(fold: Fold) -> bool:
    return fold.kind == "module" and fold.repeated == 1


def _all_folds(items: list[Fold | int]) -> Iterator[Fold]:
    stack = [item for item in items if isinstance(item, Fold)]
    while stack:
        fold = stack.pop()
        yield fold
        stack += [child for child in fold.children if isinstance(child, Fold)]


def fold(
    document: dict[str, Any], expanded: frozenset[str] | None = None, limit: int = LIMIT
) -> FoldedGraph:
    """The picture of a document of kind ``graph``; ``expanded=None`` is the opening view."""
    return GraphTree(document).fold(expanded, limit=limit)
