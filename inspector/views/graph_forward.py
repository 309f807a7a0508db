"""The forward side of a captured graph: modules with shapes, in the order in which data flows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_PLAIN_VIEWS = re.compile(r"(T|Transpose|Permute|Expand|View|UnsafeView|Reshape|ToCopy)Backward\d*")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a module, or of one of its calls, during the forward pass.

    Attributes:
        shapes: such as ``32×8 → 32×4``; of several calls those of the first, and a mark when
            others differ.
        micros: microseconds of all its calls together, its submodules included; None unknown.
        calls: how many there were.
        first: place of its first call among all, from 1.
    """

    shapes: str
    micros: float | None
    calls: int
    first: int


def seen_modules(document: dict[str, Any]) -> dict[str, Seen]:
    """By key of the fold: ``m:path`` for all calls of a module, ``m:path#2`` for one of them."""
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for place, call in enumerate(document.get("calls", ()), start=1):
        for key in (f"m:{call['module']}", f"m:{call['module']}#{call['call']}"):
            groups.setdefault(key, []).append((place, call))
    return {key: _seen(calls) for key, calls in groups.items()}


def forward_document(document: dict[str, Any]) -> dict[str, Any]:
    """The graph as the forward pass saw it.

    Without parameters and what only turns them over; operations have the names of the forward
    pass; calls of modules that left nothing in the graph (frozen, or without effect) stand where
    they ran. Nodes keep their ``id``; of added ones it is beyond those of the graph. ``implied``
    lists edges that only the order of the calls tells.
    """
    nodes = document["nodes"]
    hidden = _parameter_side(document)
    shown = [dict(node, op=forward_name(node["op"])) for node in nodes if node["id"] not in hidden]
    absent, links, implied = _absent_calls(document, hidden)
    rank = {node["id"]: float(node["id"]) for node in shown} | {a["id"]: a["rank"] for a in absent}
    shown = sorted([*shown, *absent], key=lambda node: rank[node["id"]])
    place = {node["id"]: position for position, node in enumerate(shown)}
    edges = [(a, b) for a, b in document["edges"] if a in place and b in place]
    modules = {path: dict(facts) for path, facts in document["modules"].items()}
    types = {call["module"]: call["type"] for call in document.get("calls", ())}
    for node in absent:
        path = node["module"]
        known = modules.setdefault(path, {"type": node["op"], "calls": 0})
        known["calls"] = max(known["calls"], node["call"] + 1)
        while path:
            path = path.rpartition(".")[0]
            modules.setdefault(path, {"type": types.get(path, ""), "calls": 0})
    return document | {
        "nodes": shown,
        "edges": sorted([place[a], place[b]] for a, b in {*edges, *links, *implied}),
        "implied": sorted([place[a], place[b]] for a, b in implied),
        "modules": modules,
    }


def forward_name(op: str) -> str:
    """``AddmmBackward0`` → ``addmm``, ``NativeBatchNormBackward0`` → ``native_batch_norm``."""
    bare = re.sub(r"Backward\d*$", "", op)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).lower() if bare != op else op


def _parameter_side(document: dict[str, Any]) -> set[int]:
    """Leaves, and views made of them alone: a transposed weight is no step of the data."""
    made_of: dict[int, list[int]] = {}
    for producer, consumer in document["edges"]:
        made_of.setdefault(consumer, []).append(producer)
    hidden: set[int] = set()
    for node in document["nodes"]:  # producers come first
        leaf = node["accumulated"] is not None
        sources = made_of.get(node["id"], [])
        turned = _PLAIN_VIEWS.fullmatch(node["op"]) and sources and hidden.issuperset(sources)
        if (leaf and node["parameter"] is not None) or turned:
            hidden.add(node["id"])
    return hidden


def _absent_calls(
    document: dict[str, Any], hidden: set[int]
) -> tuple[list[dict[str, Any]], set[tuple[int, int]], set[tuple[int, int]]]:
    """Innermost calls that left no node, as nodes; their edges, known and implied by order."""
    calls = document.get("calls", [])
    own: dict[tuple[str, int], list[int]] = {}
    for node in document["nodes"]:
        if node["module"] is not None and node["id"] not in hidden:
            own.setdefault((node["module"], node["call"]), []).append(node["id"])
    around = {call["inside"] for call in calls}
    ends: dict[int, tuple[int, int]] = {}  # first and last node of each innermost call
    absent: list[dict[str, Any]] = []
    last, count = -1, len(document["nodes"])
    for place, call in enumerate(calls):
        members = own.get((call["module"], call["call"]), [])
        if members:
            ends[place] = (members[0], members[-1])
            last = last if place in around else max(last, members[0])
        elif place not in around:
            made = _pseudo(count + len(absent), call, last + (len(absent) + 1) / (count + 1e6))
            ends[place] = (made["id"], made["id"])
            absent.append(made)
    return absent, *_absent_links(calls, around, ends, count)


def _absent_links(
    calls: list[dict[str, Any]],
    around: set[int | None],
    ends: dict[int, tuple[int, int]],
    count: int,
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    links: set[tuple[int, int]] = set()
    implied: set[tuple[int, int]] = set()
    before: int | None = None
    for place, call in enumerate(calls):
        if place in around or place not in ends:
            continue
        start = ends[place][0]
        known = [ends[maker][1] for maker in call["after"] if maker in ends]
        for maker in known:
            if maker >= count or start >= count:
                links.add((maker, start))
        if not known and before is not None and (before >= count or start >= count):
            implied.add((before, start))
        before = ends[place][1]
    return links, implied


def _pseudo(number: int, call: dict[str, Any], rank: float) -> dict[str, Any]:
    return {
        "id": number, "op": call["type"], "module": call["module"], "call": call["call"],
        "file": "", "line": 0, "dtype": "", "shape": next(iter(call["outputs"]), None),
        "absent": True, "outputs": len(call["outputs"]), "parameter": None, "accumulated": None,
        "saved": [], "saved_bytes": 0, "grad_norm": None, "nonfinite": "", "rank": rank,
    }  # fmt: skip


def _seen(calls: list[tuple[int, dict[str, Any]]]) -> Seen:
    shapes = [_arrow(call) for _, call in calls]
    times = [call["us"] for _, call in calls if call["us"] is not None]
    text = shapes[0] + (" …" if len(set(shapes)) > 1 else "")
    return Seen(text, sum(times) if times else None, len(calls), calls[0][0])


def _arrow(call: dict[str, Any]) -> str:
    return f"{_sizes(call['inputs'])} → {_sizes(call['outputs'])}"


def _sizes(shapes: list[list[int]]) -> str:
    return ", ".join("×".join(map(str, shape)) or "scalar" for shape in shapes) or "–"
