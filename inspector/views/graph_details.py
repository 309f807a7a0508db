"""What is said about the selected box of the graph."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from inspector.views.graph import GraphTree
from inspector.views.graph_dot import number
from inspector.views.graph_tree import Fold


@dataclass(frozen=True, slots=True)
class Details:
    """Facts about one box, as unescaped text.

    Attributes:
        rows: label and value.
        saved: the tensors it keeps for the backward pass: name, shape, dtype, size, remark.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    saved: tuple[tuple[str, str, str, str, str], ...] = ()


def details(tree: GraphTree, key: str) -> Details | None:
    """Facts about the box with that key; None when the graph has none of it."""
    if key in tree.folds:
        return _of_fold(tree, tree.folds[key])
    _, _, place = key.partition("o:")
    nodes = tree.document["nodes"]
    return _of_node(nodes[int(place)]) if place.isdigit() and int(place) < len(nodes) else None


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _of_fold(tree: GraphTree, fold: Fold) -> Details:
    members = [tree.document["nodes"][member] for member in fold.members()]
    leaves = [node for node in members if node["accumulated"] is not None]
    ops = Counter(node["op"] for node in members if node["accumulated"] is None)
    rows = [
        ("type", fold.subtitle),
        ("nodes", f"{len(members)}, of which {len(leaves)} parameters"),
        ("most frequent", ", ".join(f"{op} × {count}" for op, count in ops.most_common(4))),
        ("parameter gradients", _together(leaves)),
        ("saved for backward", size(sum(node["saved_bytes"] for node in members))),
    ]
    return Details(fold.title, tuple(row for row in rows if row[1]))


def _of_node(node: dict[str, Any]) -> Details:
    module = "outside the model" if node["module"] is None else node["module"] or "the model itself"
    rows = [
        ("module", module + (f", call {node['call']}" if node["call"] else "")),
        ("line", f"{_tail(node['file'])}:{node['line']}" if node["file"] else ""),
        ("output", f"{_shape(node['shape'])} {node['dtype']}".strip()),
        ("outputs", str(node["outputs"]) if node["outputs"] > 1 else ""),
        ("gradient norm", _norm(node)),
    ]
    if node["accumulated"] is not None:
        rows.append(("passes piled up before this one", str(node["accumulated"])))
    else:
        rows.append(("saved for backward", size(node["saved_bytes"])))
    saved = tuple(
        (
            item["name"], _shape(item["shape"]), item["dtype"], size(item["bytes"]),
            item["note"] or (f"parameter {item['parameter']}" if item["parameter"] else ""),
        )
        for item in node["saved"]
    )  # fmt: skip
    title = node["parameter"] or node["op"]
    return Details(title, tuple(row for row in rows if row[1]), saved)


def _together(leaves: list[dict[str, Any]]) -> str:
    bad = next((leaf["nonfinite"] for leaf in leaves if leaf["nonfinite"]), "")
    norms = [leaf["grad_norm"] for leaf in leaves if leaf["grad_norm"] is not None]
    if bad:
        return f"{bad} among them"
    return f"norm {number(math.hypot(*norms))} together" if norms else ""


def _norm(node: dict[str, Any]) -> str:
    if node["nonfinite"]:
        return f"not finite ({node['nonfinite']})"
    return "not measured" if node["grad_norm"] is None else number(node["grad_norm"])


def _tail(file: str) -> str:
    parts = PurePath(file).parts
    return file if len(parts) <= 4 else "…/" + "/".join(parts[-3:])


def _shape(shape: list[int] | None) -> str:
    if shape is None:
        return "?"
    return " × ".join(str(length) for length in shape) if shape else "scalar"
