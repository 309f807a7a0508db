"""The autograd graph folded to a picture of a bounded number of boxes (no torch needed)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inspector.views.graph_tree import Fold, arrange

LIMIT = 300
FIT = 60  # boxes of the opening view
DEPTH = 1e-12  # the colour scale spans twelve decades at most


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the picture: a closed fold, an operation or a parameter.

    Attributes:
        id: name inside this picture.
        key: identity across pictures; a closed fold opens by adding it to ``expanded``.
        title, subtitle: text, unescaped.
        kind: ``fold``, ``op`` or ``parameter``.
        ops: autograd nodes inside.
        norm: L2 norm of the gradient that arrives at the box's outputs; None when not measured
            or not finite.
        nonfinite: "nan" or "inf" when such a gradient arrives at any node inside, else "".
        born: whether a non-finite gradient leaves the box while only finite ones arrive.
        words: what a search finds the box by.
    """

    id: str
    key: str
    title: str
    subtitle: str
    kind: str
    ops: int
    norm: float | None
    nonfinite: str
    born: bool
    words: str


@dataclass(frozen=True, slots=True)
class Frame:
    """An open fold, drawn around its contents."""

    id: str
    key: str
    title: str
    children: tuple[Frame | Box, ...]


@dataclass(frozen=True, slots=True)
class FoldedGraph:
    """A picture of bounded size.

    Attributes:
        children: the top level.
        edges: from, to (ids of boxes, in the direction of the forward pass) and how many.
        expanded: keys of the open folds, which may be fewer than were asked for.
        low, high: ends of the colour scale: the least and the largest positive gradient norm in the
            whole graph, at most twelve decades apart; None without any.
        total: autograd nodes in the whole graph.
        notes: sentences for the reader.
    """

    children: tuple[Frame | Box, ...]
    edges: tuple[tuple[str, str, int], ...]
    expanded: frozenset[str]
    low: float | None
    high: float | None
    total: int
    notes: tuple[str, ...] = ()

    def boxes(self) -> Iterator[Box]:
        """All boxes, in the order of the forward pass within each frame."""
        stack: list[Frame | Box] = list(reversed(self.children))
        while stack:
            item = stack.pop()
            if isinstance(item, Box):
                yield item
            else:
                stack += reversed(item.children)


@dataclass(slots=True)
class GraphTree:
    """A captured graph, arranged once and folded often."""

    document: dict[str, Any]
    top: list[Fold | int] = field(init=False)
    folds: dict[str, Fold] = field(init=False)

    def __post_init__(self) -> None:
        self.top = arrange(self.document)
        self.folds = {fold.key: fold for fold in _all_folds(self.top)}

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

    def fold(self, expanded: Iterable[str] | None = None, *, limit: int = LIMIT) -> FoldedGraph:
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
        return _Picture(self.document, opened).draw(self.top, notes)

    def _within(self, wanted: frozenset[str], limit: int) -> tuple[frozenset[str], list[str]]:
        opened: set[str] = set()
        refused = []
        count = len(self.top)
        queue = [item for item in self.top if isinstance(item, Fold)]
        for fold in queue:
            if fold.key not in wanted:
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
        opened = frozenset(expanded)
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

    def __init__(self, document: dict[str, Any], opened: frozenset[str]) -> None:
        self._nodes = document["nodes"]
        self._edges = document["edges"]
        self._opened = opened
        self._box_of = [-1] * len(self._nodes)
        self._items: list[Fold | int] = []  # what box number i stands for
        self._frames = 0

    def draw(self, top: list[Fold | int], notes: list[str]) -> FoldedGraph:
        self._assign(top)
        counts, outputs, born = self._links()
        boxes = [
            self._box(number, outputs[number], number in born) for number in range(len(self._items))
        ]
        norms = [n["grad_norm"] for n in self._nodes if n["grad_norm"]]
        return FoldedGraph(
            children=self._nest(top, iter(boxes)),
            edges=tuple((f"n{a}", f"n{b}", count) for (a, b), count in counts.items()),
            expanded=self._opened,
            low=max(min(norms), max(norms) * DEPTH) if norms else None,
            high=max(norms, default=None),
            total=len(self._nodes),
            notes=tuple(notes),
        )

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
        births: set[int] = set()
        for producer, consumer in self._edges:
            consumed.add(producer)
            a, b = self._box_of[producer], self._box_of[consumer]
            if a != b:
                counts[a, b] = counts.get((a, b), 0) + 1
                outputs[a].add(producer)
            if self._nodes[producer]["nonfinite"] and not self._nodes[consumer]["nonfinite"]:
                births.add(b)
        for position in range(len(self._nodes)):
            if position not in consumed:
                outputs[self._box_of[position]].add(position)
        return counts, outputs, births

    def _box(self, number: int, outputs: set[int], born: bool) -> Box:
        item = self._items[number]
        members = [item] if isinstance(item, int) else list(item.members())
        marks = {self._nodes[member]["nonfinite"] for member in members} - {""}
        norms = [self._nodes[output]["grad_norm"] for output in outputs]
        known = [norm for norm in norms if norm is not None]
        norm = math.sqrt(sum(value * value for value in known)) if known else None
        words = {
            word
            for member in members
            for name in ("op", "module", "parameter")
            if (word := self._nodes[member][name])
        }
        if isinstance(item, Fold):
            key, title, subtitle, kind = item.key, item.title, item.subtitle, "fold"
            words |= {title, subtitle}
        else:
            key, title, subtitle, kind = self._loose(item)
        nonfinite = "nan" if "nan" in marks else next(iter(marks), "")
        return Box(
            f"n{number}", key, title, subtitle, kind, len(members),
            norm, nonfinite, born, "\n".join(sorted(words)).lower(),
        )  # fmt: skip

    def _loose(self, position: int) -> tuple[str, str, str, str]:
        node = self._nodes[position]
        size = "×".join(str(length) for length in node["shape"]) if node["shape"] else ""
        if node["shape"] == []:
            size = "scalar"
        if node["accumulated"] is not None:
            return f"o:{position}", node["parameter"] or "leaf tensor", size, "parameter"
        return f"o:{position}", node["op"], size, "op"

    def _nest(self, items: list[Fold | int], boxes: Iterator[Box]) -> tuple[Frame | Box, ...]:
        children: list[Frame | Box] = []
        for item in items:
            if isinstance(item, Fold) and item.key in self._opened:
                number = self._frames
                self._frames += 1
                inner = self._nest(item.children, boxes)
                title = f"{item.title} · {item.subtitle}" if item.subtitle else item.title
                children.append(Frame(f"c{number}", item.key, title, inner))
            else:
                children.append(next(boxes))
        return tuple(children)


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
