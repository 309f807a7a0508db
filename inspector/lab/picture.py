"""The graph of a snippet as DOT text: every node a box, with its name, value and gradient."""

from __future__ import annotations

from typing import Any

from inspector.numerals import short
from inspector.views.graph import Box, FoldedGraph
from inspector.views.graph_dot import BAD, colour, escape, on

MOST_BOXES = 60
_MOST_INLINE = 4  # numbers of a vector that stand in a box

_HEAD = """digraph autograd {
  bgcolor="transparent" nodesep=0.3 ranksep=0.3 rankdir=TB
  node [shape=box style="filled,rounded" fontname="Helvetica" fontsize=14 margin="0.16,0.07" \
fillcolor="#e9ecf1" color="#8a93a3" fontcolor="#1b1f27"]
  edge [color="#7b8494" arrowsize=0.7]
"""


def flat(document: dict[str, Any]) -> FoldedGraph:
    """A small graph without any folds; box ``n3`` stands for the node at position 3."""
    boxes = tuple(_box(position, node) for position, node in enumerate(document["nodes"]))
    edges: dict[tuple[str, str], int] = {}
    for start, end in document["edges"]:
        link = (f"n{start}", f"n{end}")
        edges[link] = edges.get(link, 0) + 1
    norms = [node["grad_norm"] for node in document["nodes"] if node["grad_norm"]]
    return FoldedGraph(
        children=boxes,
        edges=tuple((start, end, count) for (start, end), count in edges.items()),
        expanded=frozenset(),
        low=min(norms, default=None),
        high=max(norms, default=None),
        total=len(boxes),
        notes=tuple(document["notes"]),
    )


def to_dot(document: dict[str, Any], folded: FoldedGraph) -> str:
    """DOT of what :func:`flat` made; leaves are ellipses, colours are gradient norms."""
    lines = [_HEAD]
    for position, node in enumerate(document["nodes"]):
        lines.append(f"  n{position} [{_attributes(position, node, folded)}]\n")
    for start, end, count in folded.edges:
        label = f' [label="×{count}" penwidth=2]' if count > 1 else ""
        lines.append(f"  {start} -> {end}{label}\n")
    lines.append("}\n")
    return "".join(lines)


def numbers(value: Any) -> str:
    """A number, or a short vector, in four digits; "" for what has no room in a box."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, (int, float)):
        return short(value).replace("-", "−")
    if len(value) <= _MOST_INLINE and not any(isinstance(item, list) for item in value):
        return f"[{', '.join(map(numbers, value))}]"
    return ""


def _box(position: int, node: dict[str, Any]) -> Box:
    leaf = node["accumulated"] is not None
    title = _title(node)
    return Box(
        id=f"n{position}", key=f"o:{position}", title=title,
        subtitle="\n".join(_facts(node)), kind="parameter" if leaf else "op", ops=1,
        norm=node["grad_norm"], nonfinite=node["nonfinite"], born=False, words=title.lower(),
    )  # fmt: skip


def _title(node: dict[str, Any]) -> str:
    name = node.get("name")
    if node["accumulated"] is not None:
        return name or "leaf tensor"
    return f"{name} · {node['op']}" if name else str(node["op"])


def _facts(node: dict[str, Any]) -> list[str]:
    shape = "×".join(map(str, node["shape"] or []))
    value = numbers(node.get("value"))
    gradient = numbers(node.get("gradient"))
    facts = [f"value {value}" if value else shape]
    if gradient:
        facts.append(f"gradient {gradient}")
    elif node["grad_norm"] is not None:
        facts.append(f"‖gradient‖ {numbers(node['grad_norm'])}")
    if node["nonfinite"] and not gradient:
        facts.append(f"gradient is {'NaN' if node['nonfinite'] == 'nan' else '∞'}")
    after = numbers(node.get("grad_after"))
    if after and after != gradient:
        facts.append(f".grad {after}")
    return [fact for fact in facts if fact]


def _attributes(position: int, node: dict[str, Any], folded: FoldedGraph) -> str:
    label = "\\n".join(escape(line) for line in (_title(node), *_facts(node)))
    fill = BAD if node["nonfinite"] else colour(node["grad_norm"], folded.low, folded.high)
    leaf = node["accumulated"] is not None
    kind = "parameter" if leaf else "op"
    parts = [
        f'id="n{position}"', f'class="{kind}{"" if fill else " plain"}"', f'label="{label}"',
    ]  # fmt: skip
    if leaf:
        parts.append('shape=ellipse style=filled margin="0.02,0.02"')
    if fill:
        parts.append(f'fillcolor="{fill}" fontcolor="{on(fill)}"')
    return " ".join(parts)
