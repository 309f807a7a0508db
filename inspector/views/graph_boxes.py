"""What a folded picture of a graph consists of: boxes, frames around them, edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from inspector.views.graph_measures import MeasureKey

Side = Literal["backward", "forward"]


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the picture: a closed fold, an operation or a parameter.

    Attributes:
        id: name inside this picture.
        key: identity across pictures; a closed fold opens by adding it to ``expanded``.
        title, subtitle: text, unescaped.
        kind: ``fold``, ``op``, ``parameter``, or ``module`` for one that has nothing to open.
        ops: autograd nodes inside.
        value: what the box is coloured by, see ``FoldedGraph.measure``; None when unknown.
        norm: L2 norm of the gradient that arrives at the box's outputs; None when not measured
            or not finite.
        nonfinite: "nan" or "inf" when such a gradient arrives at any node inside, else "".
        born: whether a non-finite gradient leaves the box while only finite ones arrive.
        words: what a search finds the box by.
        shapes: of a module's input and output, on the forward side.
        changes: how many nodes inside stand only in the other step, only in this one, or are
            changed, by mark; empty unless two steps are compared.
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
    value: float | None = None
    shapes: str = ""
    changes: tuple[tuple[str, int], ...] = ()


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
        low, high: ends of the colour scale, at most twelve decades apart; None without any value.
            Of gradient norms the least and the largest in the whole graph; of what adds up, the
            least of a node and the largest of a box.
        total: autograd nodes in the whole graph.
        notes: sentences for the reader.
        measure: what the boxes are coloured by.
        side: whether arrows stand for data (``forward``) or gradients (``backward``).
        placed: box id by node id.
        implied: edges that only the order of calls tells.
    """

    children: tuple[Frame | Box, ...]
    edges: tuple[tuple[str, str, int], ...]
    expanded: frozenset[str]
    low: float | None
    high: float | None
    total: int
    notes: tuple[str, ...] = ()
    measure: MeasureKey = "gradient"
    side: Side = "backward"
    placed: dict[int, str] = field(default_factory=dict)
    implied: frozenset[tuple[str, str]] = frozenset()

    def boxes(self) -> Iterator[Box]:
        """All boxes, in the order of the forward pass within each frame."""
        stack: list[Frame | Box] = list(reversed(self.children))
        while stack:
            item = stack.pop()
            if isinstance(item, Box):
                yield item
            else:
                stack += reversed(item.children)
