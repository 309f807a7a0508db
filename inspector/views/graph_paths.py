"""The way a NaN, or a gradient that shrinks, takes through the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from inspector.views.graph_boxes import FoldedGraph
from inspector.views.graph_measures import number

PathKind = Literal["nonfinite", "smallest"]
SHARPEST = 3  # hops that the sentence names
RATIO = 1e-3


@dataclass(frozen=True, slots=True)
class GradientPath:
    """Nodes that a gradient went through, from the loss towards the parameters.

    Attributes:
        nodes: ids in the order in which the engine ran them.
        links: pairs of nodes, from the one that sent to the one that received.
        origin: where it begins: the node out of which the first non-finite gradient came, or the
            last operation before the loss.
        sentence: what happened, unescaped.
        norms: gradient norm that arrived at each node, where known.
    """

    kind: PathKind
    nodes: tuple[int, ...]
    links: frozenset[tuple[int, int]]
    origin: int
    sentence: str
    norms: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DrawnPath:
    """The path in one picture.

    Attributes:
        boxes: ids of boxes in the order in which the gradient gets there.
        links: pairs of boxes, from sender to receiver, with a factor: the norm that arrives at
            the receiver over that which arrived at the sender; None where it is unknown.
        origin: id of the box where it begins.
    """

    kind: PathKind
    boxes: tuple[str, ...]
    links: dict[tuple[str, str], float | None]
    origin: str | None


def nonfinite_path(document: dict[str, Any]) -> GradientPath | None:
    """From the first node out of which a non-finite gradient came to all that it reached."""
    nodes = document["nodes"]
    bad = {node["id"] for node in nodes if node["nonfinite"]}
    if not bad:
        return None
    senders = _consumers(document)
    births = set(born(document))
    # Nothing was finite before: the gradient came that way into the loss.
    starts = births or {max(bad, key=lambda place: _turn(nodes[place]))}
    origin = max(starts, key=lambda place: _turn(nodes[place]))
    reached = sorted(bad - {origin}, key=lambda place: -_turn(nodes[place]))
    links = {
        (sender, receiver)
        for receiver in bad
        for sender in senders.get(receiver, ())
        if sender in bad or sender in births
    }
    return GradientPath(
        "nonfinite", (origin, *reached), frozenset(links), origin,
        _nonfinite_sentence(document, origin, bad, births),
    )  # fmt: skip


def born(document: dict[str, Any]) -> Iterator[int]:
    """Positions of nodes out of which a non-finite gradient comes, while only finite ones arrive.

    Where several finite gradients are summed to a non-finite one, all that sent them.
    """
    nodes = document["nodes"]
    for receiver, senders in _consumers(document).items():
        if nodes[receiver]["nonfinite"] and not any(nodes[s]["nonfinite"] for s in senders):
            yield from senders


def smallest_path(document: dict[str, Any]) -> GradientPath | None:
    """From the loss to the parameter with the smallest gradient; where paths join, along the
    larger one. None when no parameter's gradient was measured or one is not finite."""
    nodes = document["nodes"]
    leaves = [node for node in nodes if node["parameter"] and node["grad_norm"] is not None]
    if not leaves or any(node["nonfinite"] for node in nodes):
        return None
    target = min(leaves, key=lambda node: node["grad_norm"])
    senders = _consumers(document)
    chain = [target["id"]]
    while above := [place for place in senders.get(chain[-1], ()) if _known(nodes[place])]:
        chain.append(max(above, key=lambda place: (nodes[place]["grad_norm"], place)))
    chain.reverse()
    norms = {place: nodes[place]["grad_norm"] for place in chain}
    return GradientPath(
        "smallest", tuple(chain), frozenset(pairwise(chain)), chain[0],
        _smallest_sentence(nodes, chain, leaves), norms,
    )  # fmt: skip


def vanishes(document: dict[str, Any]) -> bool:
    """Whether a weight's gradient is below a thousandth of another's, root mean squares compared.

    The threshold is that of the rule ``vanishing_gradient``.
    """
    sizes = [
        node["grad_norm"] / math.sqrt(math.prod(node["shape"]) or 1)
        for node in document["nodes"]
        if node["parameter"] and node["grad_norm"] is not None and len(node["shape"] or ()) > 1
    ]
    return len(sizes) > 1 and min(sizes) < RATIO * max(sizes)


def drawn(path: GradientPath, folded: FoldedGraph) -> DrawnPath:
    """The path among the boxes of a picture, on either side of it."""
    boxes: dict[str, int] = {}
    for node in path.nodes:
        box = folded.placed.get(node)
        if box is not None:
            boxes.setdefault(box, node)
    links: dict[tuple[str, str], float | None] = {}
    for sender, receiver in sorted(path.links, reverse=True):
        pair = (folded.placed.get(sender), folded.placed.get(receiver))
        if None in pair or pair[0] == pair[1]:
            continue
        first, second = (boxes.get(str(box)) for box in pair)
        before, after = path.norms.get(first or 0), path.norms.get(second or 0)
        factor = after / before if before and after is not None else None
        links[str(pair[0]), str(pair[1])] = factor
    return DrawnPath(path.kind, tuple(boxes), links, folded.placed.get(path.origin))


def _consumers(document: dict[str, Any]) -> dict[int, list[int]]:
    """By node those that send it gradients."""
    found: dict[int, list[int]] = {}
    for producer, consumer in document["edges"]:
        found.setdefault(producer, []).append(consumer)
    return found


def _turn(node: dict[str, Any]) -> int:
    """Larger for what the engine ran earlier."""
    order = node.get("order")
    return int(node["id"]) if order is None else -int(order)


def _known(node: dict[str, Any]) -> bool:
    return node["grad_norm"] is not None


def _nonfinite_sentence(
    document: dict[str, Any], origin: int, bad: set[int], births: set[int]
) -> str:
    nodes = document["nodes"]
    leaves = [node for node in nodes if node["parameter"]]
    hit = sum(bool(leaf["nonfinite"]) for leaf in leaves)
    spread = (
        f"it reached {len(bad):,} of {len(nodes):,} nodes and {hit} of {len(leaves)} parameters"
    )
    if not births:
        return f"The gradient that enters at the loss is already not finite; {spread}."
    others = len(births) - 1
    more = f" ({others} more place{'s' * (others > 1)} too)" if others else ""
    loss = document.get("loss")
    forward = (
        f" The loss itself is {'NaN' if loss == 'nan' else 'infinite'}, so it was born in the "
        "forward pass: the Backward page names the operation."
        if isinstance(loss, str)
        else ""
    )
    return f"The first non-finite gradient leaves {_name(nodes[origin])}{more}; {spread}.{forward}"


def _smallest_sentence(
    nodes: list[dict[str, Any]], chain: list[int], leaves: list[dict[str, Any]]
) -> str:
    target = nodes[chain[-1]]
    name, norm = target["parameter"], target["grad_norm"]
    largest = max(leaf["grad_norm"] for leaf in leaves)
    if norm == 0:
        stop = next(place for place in chain if nodes[place]["grad_norm"] == 0)
        before = chain[max(chain.index(stop) - 1, 0)]
        return (
            f"No gradient reaches {name}: it is exactly 0 from {_name(nodes[before])} on, "
            f"{len(chain) - 1} hops from the loss."
        )
    hops = sorted(_hops(nodes, chain))[:SHARPEST]
    sharp = ", ".join(f"{_name(nodes[place])} (× {number(factor)})" for factor, place in hops)
    start = nodes[chain[0]]["grad_norm"]
    return (
        f"{name} gets the smallest gradient, {number(norm)}, "
        f"{number(largest / norm)} times less than the largest: from {number(start)} at the loss "
        f"× {number(norm / start) if start else '?'} over {len(chain) - 1} hops, most of it lost "
        f"in {sharp}."
    )


def _hops(nodes: list[dict[str, Any]], chain: list[int]) -> Iterator[tuple[float, int]]:
    """Factor of each hop and the node that it leaves."""
    for sender, receiver in pairwise(chain):
        before, after = nodes[sender]["grad_norm"], nodes[receiver]["grad_norm"]
        if before:
            yield after / before, sender


def _name(node: dict[str, Any]) -> str:
    module = (
        "outside the model" if node["module"] is None else f"in {node['module'] or 'the model'}"
    )
    call = f" (call {node['call']})" if node["call"] else ""
    line = f", {node['file'].rpartition('/')[2]}:{node['line']}" if node["file"] else ""
    return f"{node['op']} {module}{call}{line}"
