"""Walks the graph behind a tensor without recursion, however deep it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.autograd.graph import Node

LIMIT = 50_000


@dataclass(slots=True)
class Walk:
    """What a walk found.

    Attributes:
        nodes: the nodes in the order of the forward pass, leaves just before their first use.
            They keep activations alive: drop the list as soon as it has been described.
        edges: pairs of positions in ``nodes``, from producer to consumer, in the direction of
            the forward pass; the backward pass runs against them.
        complete: False when the walk stopped at its limit.
    """

    nodes: list[Node]
    edges: list[tuple[int, int]]
    complete: bool


def walk(root: Node, *, limit: int = LIMIT) -> Walk:
    """Every node that the backward pass from ``root`` visits, nearest to the root first in doubt.

    At most ``limit`` nodes are visited, so that an unrolled loop of a million steps ends too.
    """
    found: dict[Node, int] = {root: 0}
    order = [root]
    links: list[tuple[int, int]] = []
    complete = True
    for position, node in enumerate(order):  # grows while it is walked: breadth first
        for producer, _ in node.next_functions:
            if producer is None:
                continue
            number = found.get(producer)
            if number is None:
                if len(order) >= limit:
                    complete = False
                    continue
                number = found[producer] = len(order)
                order.append(producer)
            links.append((number, position))
    return _in_forward_order(order, links, complete)


def leaf_of(node: Node) -> torch.Tensor | None:
    """The tensor to whose ``.grad`` the node adds gradients; None for an operation."""
    variable = getattr(node, "variable", None)
    return variable if isinstance(variable, torch.Tensor) else None


def _in_forward_order(order: list[Node], links: list[tuple[int, int]], complete: bool) -> Walk:
    # Leaves carry the largest sequence number there is: they take that of their first consumer.
    rank = [float(node._sequence_nr()) for node in order]
    leaves = {position for position, node in enumerate(order) if leaf_of(node) is not None}
    first: dict[int, float] = {}
    for producer, consumer in links:
        if producer in leaves:
            first[producer] = min(first.get(producer, float("inf")), rank[consumer])
    for leaf in leaves:
        rank[leaf] = first.get(leaf, 0.0) - 0.5
    forward = sorted(range(len(order)), key=lambda position: (rank[position], -position))
    place = {old: new for new, old in enumerate(forward)}
    edges = sorted((place[producer], place[consumer]) for producer, consumer in links)
    return Walk([order[old] for old in forward], edges, complete)
