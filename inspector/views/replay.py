"""One recorded backward pass as what the browser steps through: plain data, ready to draw."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from inspector.views.graph_dot import escape
from inspector.views.graph_measures import number

_BROADCAST = (
    "An input that was broadcast in the forward pass was used several times: its gradient is "
    "summed back to its own shape."
)
_UNKNOWN = "No rule is written down for this operation; the numbers are autograd's own."
Tensor = dict[str, Any]


def replay(document: dict[str, Any]) -> dict[str, Any]:
    """The view of a document of kind ``backward``.

    Returns:
        ``nodes`` (id, op, title, where, module, forward, value, leaf, dot), ``edges`` (producer,
        consumer), ``steps`` in the engine's order (node, words, arrivals, incoming, outgoing,
        before, after, check, norm, bad), ``loss``, ``modules`` and ``ops`` that occur,
        ``notes``, ``module_check``.
    """
    nodes = [_node(record) for record in document["nodes"]]
    arrivals: dict[int, list[dict[str, Any]]] = {}
    steps = []
    for visit in document["visits"]:
        steps.append(_step(visit, document["nodes"][visit["node"]], nodes, arrivals))
        for sent in visit["outgoing"]:
            if sent["to"] is not None and sent["gradient"] is not None:
                entry = {"from": nodes[visit["node"]]["title"], "tensor": sent["gradient"]}
                arrivals.setdefault(sent["to"], []).append(entry)
    visited = [nodes[step["node"]] for step in steps]
    for step in steps:
        node = nodes[step["node"]]
        node["dot"] = _dot(node, step)
    return {
        "nodes": nodes,
        "edges": document["edges"],
        "steps": steps,
        "first_bad_value": _first_bad_value(nodes),
        "loss": document.get("loss"),
        "modules": _distinct(node["module"] for node in visited if node["module"]),
        "ops": _distinct(node["title"] for node in visited),
        "notes": document["notes"],
        "module_check": document.get("module_check"),
    }


def bad(tensor: Tensor | None) -> str:
    """``NaN``, ``infinite`` or ""."""
    if tensor is None:
        return ""
    return "NaN" if tensor["nan"] else "infinite" if tensor["inf"] else ""


def shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor["shape"])) or "one number"


def _node(record: dict[str, Any]) -> dict[str, Any]:
    leaf = record["accumulated"] is not None
    name = record.get("name")
    rule = record.get("rule")
    op = record["op"]
    title = (name or "a leaf without name") if leaf else f"{name} · {op}" if name else op
    node = {
        "id": record["id"], "op": op, "title": title, "leaf": leaf,
        "module": record["module"] or "", "where": _where(record),
        "forward": "" if leaf or rule is None else rule["forward"],
        "value": record.get("value"),
    }  # fmt: skip
    node["dot"] = _dot(node, None)
    return node


def _where(record: dict[str, Any]) -> str:
    parts = []
    if record["module"]:
        parts.append(record["module"])
    if record["line"]:
        file = PurePath(record["file"]).name
        parts.append(
            f"line {record['line']}" if file.startswith("<") else f"{file}:{record['line']}"
        )
    return " · ".join(parts)


def _step(
    visit: dict[str, Any],
    record: dict[str, Any],
    nodes: list[dict[str, Any]],
    arrivals: dict[int, list[dict[str, Any]]],
) -> dict[str, Any]:
    rule = record.get("rule")
    incoming = visit["incoming"]
    outgoing = [
        _sent(place, sent, incoming, rule, nodes) for place, sent in enumerate(visit["outgoing"])
    ]
    found = [bad(t) for t in (*incoming, *(sent["tensor"] for sent in outgoing), visit["after"])]
    before = [bad(tensor) for tensor in incoming]
    arrived = arrivals.get(visit["node"], [])
    words = rule["words"] if rule else _UNKNOWN
    if _broadcast(record, outgoing):
        words = f"{words} {_BROADCAST}"
    return {
        "node": visit["node"],
        "words": words,
        "arrivals": arrived if len(arrived) > 1 else [],
        "incoming": [tensor for tensor in incoming if tensor is not None],
        "outgoing": [sent for sent in outgoing if sent["tensor"] is not None],
        "before": visit["before"],
        "after": visit["after"],
        "check": visit["check"],
        "norm": _norm(incoming),
        "bad": next(filter(None, found), ""),
        "born": any(found) and not any(before),
        "value_bad": bad(record.get("value")),
    }


def _sent(
    place: int,
    sent: dict[str, Any],
    incoming: list[Tensor | None],
    rule: dict[str, Any] | None,
    nodes: list[dict[str, Any]],
) -> dict[str, Any]:
    tensor = sent["gradient"]
    names = rule["inputs"] if rule else []
    formulas = rule["formulas"] if rule else []
    first = next((item for item in incoming if item is not None), None)
    return {
        "to": sent["to"],
        "title": "" if sent["to"] is None else nodes[sent["to"]]["title"],
        "name": names[place] if place < len(names) else "",
        "formula": formulas[place] if place < len(formulas) else "",
        "tensor": tensor,
        "local": _local(first, tensor),
    }


def _local(incoming: Tensor | None, outgoing: Tensor | None) -> float | None:
    """∂y/∂a where both gradients are one number; None elsewhere."""
    if incoming is None or outgoing is None:
        return None
    into, out = incoming["values"], outgoing["values"]
    if not into or not out or len(into) != 1 or len(out) != 1:
        return None
    if isinstance(into[0], str) or isinstance(out[0], str) or into[0] == 0:
        return None
    return float(out[0] / into[0])


def _broadcast(record: dict[str, Any], outgoing: list[dict[str, Any]]) -> bool:
    if not record["op"].startswith(("Add", "Sub", "Mul", "Div", "Pow", "Rsub", "Where")):
        return False
    tensors = [sent["tensor"] for sent in outgoing if sent["tensor"] is not None]
    return any(tensor["shape"] != record["shape"] for tensor in tensors)


def _norm(incoming: list[Tensor | None]) -> float | str | None:
    """Norm over all arriving gradients, or the word for a non-finite one."""
    total = 0.0
    for tensor in incoming:
        if tensor is None or tensor["norm"] is None:
            continue
        if isinstance(tensor["norm"], str):
            return tensor["norm"]
        total += tensor["norm"] ** 2
    return float(f"{total**0.5:.6g}")


def _dot(node: dict[str, Any], step: dict[str, Any] | None) -> str:
    """The node's DOT attributes: title, forward value, gradient, one line each."""
    value = _inline(node["value"])
    # A leaf has two lines, so that its ellipse is no circle.
    listed = node["value"] is not None and len(node["value"]["values"] or ()) in (1, 2, 3)
    if node["leaf"]:
        lines = [f"{node['title']} {'=' if listed else '·'} {value}"]
    else:
        lines = [node["title"], f"value {value}" if listed else value]
    if not value:
        lines = [node["title"]]
    gradient = None
    if step is not None:
        gradient = step["after"] if node["leaf"] else next(iter(step["incoming"]), None)
    if gradient is not None:
        lines.append(f"{'.grad' if node['leaf'] else 'gradient'} {_inline(gradient, norm=True)}")
    label = "\\n".join(escape(line) for line in lines)
    form = ' shape=ellipse margin="0.05,0.03"' if node["leaf"] else ""
    return f'label="{label}"{form}'


def _inline(tensor: Tensor | None, *, norm: bool = False) -> str:
    """A tensor in a few characters: its numbers, or what is not finite, its norm or its shape."""
    if tensor is None:
        return ""
    values = tensor["values"]
    if values and len(values) <= 3:
        text = ", ".join(_number(value) for value in values)
        return text if not tensor["shape"] else f"[{text}]"
    if found := bad(tensor):
        return f"{tensor['nan'] or tensor['inf']} × {found}"
    if norm and tensor["norm"] is not None:
        return f"norm {_number(tensor['norm'])}"
    return shape(tensor)


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[value]
    return number(value).replace("-", "−")


def _first_bad_value(nodes: list[dict[str, Any]]) -> str:
    """Where the forward pass first had a NaN or infinity: nodes are in its order."""
    for node in nodes:
        if bad(node["value"]):
            return f"{node['title']} ({node['where']})" if node["where"] else str(node["title"])
    return ""


def _distinct(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
