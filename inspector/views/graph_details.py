"""What is said about the selected box of the graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from inspector.views.graph import FoldedGraph, GraphTree
from inspector.views.graph_measures import duration, node_value, number, size, together
from inspector.views.graph_tree import Fold


@dataclass(frozen=True, slots=True)
class Details:
    """Facts about one box, as unescaped text.

    Attributes:
        rows: label and value.
        saved: the tensors it keeps for the backward pass: name, shape, dtype, size, remark.
        source: the line of Python that made it, "" when unknown.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    saved: tuple[tuple[str, str, str, str, str], ...] = ()
    source: str = ""


def details(tree: GraphTree, key: str) -> Details | None:
    """Facts about the box with that key; None when this side of the graph has none of it."""
    if key in tree.folds:
        return _of_fold(tree, tree.folds[key])
    place = key.removeprefix("o:")
    wanted = int(place) if key.startswith("o:") and place.isdigit() else -1
    node = next((node for node in tree.document["nodes"] if node["id"] == wanted), None)
    return None if node is None else _of_node(node, tree)


def shown_as(tree: GraphTree, folded: FoldedGraph, key: str | None) -> str | None:
    """The box or frame of a picture that stands for a key, however it is folded; None for none.

    What the other side alone has, such as a parameter, is shown by its module.
    """
    if key is None:
        return None
    by_id = {box.id: box.key for box in folded.boxes()}
    if key in folded.expanded or key in by_id.values():
        return key
    if key in tree.folds:
        member = next(tree.folds[key].members(), None)
        node = None if member is None else tree.document["nodes"][member]["id"]
        return None if node is None else by_id.get(folded.placed.get(node, ""))
    place = key.removeprefix("o:")
    if not (key.startswith("o:") and place.isdigit()):
        return None
    if int(place) in folded.placed:
        return by_id.get(folded.placed[int(place)])
    nodes = tree.captured["nodes"]
    module = nodes[int(place)]["module"] if int(place) < len(nodes) else None
    return None if module is None else shown_as(tree, folded, f"m:{module}")


def _of_fold(tree: GraphTree, fold: Fold) -> Details:
    members = [tree.document["nodes"][member] for member in fold.members()]
    leaves = [node for node in members if node["accumulated"] is not None]
    ops = Counter(node["op"] for node in members if node["accumulated"] is None)
    seen = tree.seen.get(fold.key)
    forward = [
        ("shapes", seen.shapes),
        ("runs as", f"module call number {seen.first}"),
        ("calls", str(seen.calls) if seen.calls > 1 else ""),
        ("forward time", "" if seen.micros is None else f"{duration(seen.micros)}, all calls"),
    ] if seen else []  # fmt: skip
    count = f"{len(members)}" + (f", of which {len(leaves)} parameters" if leaves else "")
    rows = [
        ("type", fold.subtitle),
        *forward,
        ("nodes", count),
        ("most frequent", ", ".join(f"{op} × {count}" for op, count in ops.most_common(4))),
        ("parameter gradients", _norms_together(leaves)),
        ("saved for backward", size(sum(node["saved_bytes"] for node in members))),
        ("backward time", _time(members)),
    ]
    return Details(fold.title, tuple(row for row in rows if row[1]))


def _of_node(node: dict[str, Any], tree: GraphTree) -> Details:
    module = "outside the model" if node["module"] is None else node["module"] or "the model itself"
    order = node.get("order")
    rows = [
        ("module", module + (f", call {node['call']}" if node["call"] else "")),
        ("line", f"{_tail(node['file'])}:{node['line']}" if node["file"] else ""),
        ("output", f"{_shape(node['shape'])} {node['dtype']}".strip()),
        ("outputs", str(node["outputs"]) if node["outputs"] > 1 else ""),
        ("in the other step", node.get("was", "")),
    ]
    if node.get("absent"):
        rows.append(("gradient", "none: it is frozen, or its output needs none"))
        return Details(node["op"], tuple(row for row in rows if row[1]))
    rows += [
        ("gradient norm", _norm(node)),
        ("backward time", _time([node])),
        ("runs in backward as", "" if order is None else f"number {order + 1}"),
    ]
    if node["accumulated"] is not None:
        rows.append(
            ("in .grad before this pass", f"{node['accumulated']} passes since the last zero_grad")
        )
    else:
        rows.append(("saved for backward", size(node["saved_bytes"])))
    saved = tuple(
        (
            item["name"], _shape(item["shape"]), item["dtype"], size(item["bytes"]),
            _remark(item, ran=order is not None),
        )
        for item in node["saved"]
    )  # fmt: skip
    source = tree.document.get("source", {}).get(f"{node['file']}:{node['line']}", "")
    title = node["parameter"] or node["op"]
    return Details(title, tuple(row for row in rows if row[1]), saved, source)


def _remark(item: dict[str, Any], *, ran: bool) -> str:
    if item["note"]:
        return str(item["note"])
    if item["parameter"]:
        return f"parameter {item['parameter']}"
    alive = item.get("alive")
    if alive is None or not ran:
        return ""
    return "still held after the step" if alive else "freed by backward"


def _norms_together(leaves: list[dict[str, Any]]) -> str:
    bad = next((leaf["nonfinite"] for leaf in leaves if leaf["nonfinite"]), "")
    if bad:
        return f"{bad} among them"
    norm = together((leaf["grad_norm"] for leaf in leaves), "gradient")
    return "" if norm is None else f"norm {number(norm)} together"


def _norm(node: dict[str, Any]) -> str:
    if node["nonfinite"]:
        return f"not finite ({node['nonfinite']})"
    return "not measured" if node["grad_norm"] is None else number(node["grad_norm"])


def _time(nodes: list[dict[str, Any]]) -> str:
    spent = together((node_value(node, "time") for node in nodes), "time")
    return "" if spent is None else duration(spent)


def _tail(file: str) -> str:
    parts = PurePath(file).parts
    return file if len(parts) <= 4 else "…/" + "/".join(parts[-3:])


def _shape(shape: list[int] | None) -> str:
    if shape is None:
        return "?"
    return " × ".join(str(length) for length in shape) if shape else "scalar"
