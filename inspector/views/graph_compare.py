"""Two captured steps side by side: which nodes only one of them has, and which are changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from fractions import Fraction
from typing import Any

from inspector.numerals import short

ONLY_OTHER, ONLY_THIS, CHANGED = "only_other", "only_this", "changed"
MARKS = (ONLY_OTHER, ONLY_THIS, CHANGED)
MOST_ALIGNED = 2000  # nodes of one call; longer sequences are paired by their place

Place = tuple[str | None, int]  # module and call


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different at one place.

    Attributes:
        module: path, "" the model itself, None outside of it.
        mark: one of ``MARKS``.
        nodes: ids in the merged document.
        sentence: such as ``3 nodes of branch_a are only in step 12``.
    """

    module: str | None
    mark: str
    nodes: tuple[int, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two graphs in one.

    Attributes:
        document: a document of kind ``graph`` with the nodes of both; ``mark`` of a node is one
            of ``MARKS`` or "". A changed node has ``was``: its op and shape in the other step.
        counts: nodes by mark.
        differences: by place, in the order of the forward pass.
        sentence: the whole in one sentence.
    """

    document: dict[str, Any]
    counts: dict[str, int]
    differences: tuple[Difference, ...]
    sentence: str


def compare(this: dict[str, Any], other: dict[str, Any]) -> Comparison:
    """Marks what differs between the graphs of two captured steps of one model.

    Nodes belong together that the same call of the same module made from the same line, in the
    same order; parameters by their names. A batch of another size is told, and not marked.
    """
    pairs, batch = _paired(this, other)
    nodes, edges = _merged(this, other, pairs, batch)
    counts = Counter(node["mark"] for node in nodes if node["mark"])
    modules = {path: dict(facts) for path, facts in other["modules"].items()}
    for path, facts in this["modules"].items():
        calls = max(facts["calls"], modules.get(path, facts)["calls"])
        modules[path] = {"type": facts["type"], "calls": calls}
    document = this | {
        "nodes": nodes,
        "edges": edges,
        "modules": modules,
        "source": other.get("source", {}) | this.get("source", {}),
        "saved_bytes": sum(node["saved_bytes"] for node in nodes if node["mark"] != ONLY_OTHER),
        "calls": _calls(this, other),
    }
    steps = (this["step"], other["step"])
    differences = tuple(_differences(nodes, steps))
    sentence = _sentence(counts, steps, batch)
    return Comparison(document, {mark: counts[mark] for mark in MARKS}, differences, sentence)


def _paired(this: dict[str, Any], other: dict[str, Any]) -> tuple[dict[int, int], Fraction | None]:
    """Node of this step → node of the other; and how many times larger its batch is."""
    pairs: dict[int, int] = {}
    others = _by_place(other)
    for place, mine in _by_place(this).items():
        pairs.update(_aligned(mine, others.get(place, []), this["nodes"], other["nodes"]))
    return pairs, _batch_ratio(this, other, pairs)


def _batch_ratio(
    this: dict[str, Any], other: dict[str, Any], pairs: dict[int, int]
) -> Fraction | None:
    """How many times larger what goes in is; where that is unknown, what most operations say."""
    entered = [
        math.prod(calls[0]["inputs"][0])
        for document in (this, other)
        if (calls := document.get("calls")) and calls[0]["inputs"]
    ]
    if len(entered) == 2 and all(entered):
        ratio = Fraction(*entered)
        return None if ratio == 1 else ratio
    ratios = Counter(
        Fraction(math.prod(now), math.prod(was))
        for a, b in pairs.items()
        if this["nodes"][a]["accumulated"] is None
        if (now := this["nodes"][a]["shape"]) and (was := other["nodes"][b]["shape"])
        if math.prod(was)
    )
    usual, count = ratios.most_common(1)[0] if ratios else (Fraction(1), 0)
    return usual if usual not in (0, 1) and count * 2 > ratios.total() else None


def _by_place(document: dict[str, Any]) -> dict[Place, list[int]]:
    found: dict[Place, list[int]] = {}
    for node in document["nodes"]:
        leaf = node["accumulated"] is not None and node["parameter"]
        place = (f"parameter {node['parameter']}", -1) if leaf else (node["module"], node["call"])
        found.setdefault(place, []).append(node["id"])
    return found


def _aligned(
    mine: list[int], theirs: list[int], nodes: list[dict[str, Any]], others: list[dict[str, Any]]
) -> Iterator[tuple[int, int]]:
    """Pairs of nodes within one call of a module."""
    first = [_made(nodes[place]) for place in mine]
    second = [_made(others[place]) for place in theirs]
    if first == second or max(len(first), len(second)) > MOST_ALIGNED:
        yield from zip(mine, theirs, strict=False)
        return
    for tag, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        # What stands instead of another on the same line is that one, changed.
        instead = tag == "replace" and b - a == d - c
        if tag == "equal":
            yield from zip(mine[a:b], theirs[c:d], strict=True)
        elif instead:
            for left, right in zip(mine[a:b], theirs[c:d], strict=True):
                if _line(nodes[left]) == _line(others[right]):
                    yield left, right


def _made(node: dict[str, Any]) -> tuple[str, str, int]:
    return (node["op"], *_line(node))


def _line(node: dict[str, Any]) -> tuple[str, int]:
    return node["file"], node["line"]


def _merged(
    this: dict[str, Any],
    other: dict[str, Any],
    pairs: dict[int, int],
    batch: Fraction | None,
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """All nodes of this step and those that only the other has, each behind its predecessor."""
    known = {theirs: mine for mine, theirs in pairs.items()}
    entries: list[tuple[tuple[float, int, int], dict[str, Any]]] = []
    for node in this["nodes"]:
        was = other["nodes"][pairs[node["id"]]] if node["id"] in pairs else None
        entries.append(((node["id"], 0, 0), _marked(node, was, batch)))
    last = -1
    for node in other["nodes"]:
        if node["id"] in known:
            last = known[node["id"]]
        else:
            entries.append(((last, 1, node["id"]), dict(node, mark=ONLY_OTHER, was="")))
    entries.sort(key=lambda entry: entry[0])
    mine: dict[int, int] = {}
    theirs: dict[int, int] = {}
    for place, (_, node) in enumerate(entries):
        (theirs if node["mark"] == ONLY_OTHER else mine)[node["id"]] = place
    theirs |= {place: mine[ours] for place, ours in known.items()}
    nodes = [dict(node, id=place) for place, (_, node) in enumerate(entries)]
    edges = {(mine[a], mine[b]) for a, b in this["edges"]}
    edges |= {(theirs[a], theirs[b]) for a, b in other["edges"]}
    # Two graphs in one could run in a circle: edges go forward, as both orders do.
    ordered = sorted([a, b] for a, b in edges if a < b)
    return nodes, ordered


def _marked(
    node: dict[str, Any], was: dict[str, Any] | None, batch: Fraction | None
) -> dict[str, Any]:
    if was is None:
        return dict(node, mark=ONLY_THIS, was="")
    same = node["op"] == was["op"] and _same_shape(node["shape"], was["shape"], batch)
    text = "" if same else f"{was['op']} {_size(was['shape'])}"
    return dict(node, mark="" if same else CHANGED, was=text)


def _same_shape(shape: list[int] | None, was: list[int] | None, batch: Fraction | None) -> bool:
    if shape == was:
        return True
    if not batch or not shape or not was or len(shape) != len(was):
        return False
    # The batch may be folded into another dimension, as attention does: the ratio stays.
    return all(a == b or a == b * batch for a, b in zip(shape, was, strict=True))


def _calls(this: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """The module calls of this step, and after them those that only the other has."""
    calls = list(this.get("calls", ()))
    known = {(call["module"], call["call"]) for call in calls}
    extra = [c for c in other.get("calls", ()) if (c["module"], c["call"]) not in known]
    return [*calls, *(call | {"inside": None, "after": []} for call in extra)]


def _differences(nodes: list[dict[str, Any]], steps: tuple[int, int]) -> Iterator[Difference]:
    groups: dict[tuple[str | None, str], list[int]] = {}
    for node in nodes:
        if node["mark"]:
            groups.setdefault((node["module"], node["mark"]), []).append(node["id"])
    for (module, mark), members in groups.items():
        count = f"{len(members)} node{'s' * (len(members) > 1)}"
        where = "outside the model" if module is None else f"in {module or 'the model itself'}"
        if mark == CHANGED:
            node = nodes[members[0]]
            now = f"{node['op']} {_size(node['shape'])}"
            sentence = f"{count} {where} changed, such as {node['was']} → {now}"
        else:
            step = steps[1] if mark == ONLY_OTHER else steps[0]
            sentence = f"{count} {where} only in step {step:,}"
        yield Difference(module, mark, tuple(members), sentence)


def _sentence(counts: Counter[str], steps: tuple[int, int], batch: Fraction | None) -> str:
    size = (
        f" The batch is {short(float(batch), 3)} times as large, which is not marked."
        if batch
        else ""
    )
    if not counts:
        return f"Steps {steps[1]:,} and {steps[0]:,} have the same graph.{size}"
    return (
        f"{counts[ONLY_OTHER]:,} nodes only in step {steps[1]:,}, {counts[ONLY_THIS]:,} only in "
        f"step {steps[0]:,}, {counts[CHANGED]:,} changed.{size}"
    )


def _size(shape: list[int] | None) -> str:
    if shape is None:
        return ""
    return "×".join(map(str, shape)) or "scalar"
