"""The nodes of an autograd graph arranged as a tree of folds: modules, calls, ranges, lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

CROWD = 40  # children under one fold; more are put into ranges
FEW_CALLS = 4
FEW = 12  # single nodes among many folds, such as the parameters of a cell, stay single

Kind = Literal["module", "calls", "call", "lines", "range"]


@dataclass(slots=True, eq=False)
class Fold:
    """Nodes that are drawn as one box while it is closed, as a frame when it is open.

    Attributes:
        key: identity across captures of the same model, such as ``m:encoder.layers``.
        title: module path, call number or source line.
        subtitle: what it consists of, such as ``12 × EncoderBlock``.
        children: folds and positions of nodes, in the order of the forward pass.
        repeated: how often it was called; folds of more than one call open by hand only.
    """

    key: str
    kind: Kind
    title: str
    subtitle: str = ""
    children: list[Fold | int] = field(default_factory=list)
    repeated: int = 1

    def members(self) -> Iterator[int]:
        """Positions of all nodes inside, at any depth."""
        stack: list[Fold | int] = [self]
        while stack:
            item = stack.pop()
            if isinstance(item, int):
                yield item
            else:
                stack += item.children


def arrange(document: dict[str, Any]) -> list[Fold | int]:
    """The top level: the model as one fold, and what happens outside of it (the loss)."""
    nodes = document["nodes"]
    own: dict[str | None, list[int]] = {}
    for position, node in enumerate(nodes):
        own.setdefault(node["module"], []).append(position)
    outside = own.pop(None, [])
    top: list[Fold | int] = list(_by_line(outside, nodes, "top"))
    if own:
        top.append(_model(document, own))
    return _crowded(_in_order(top), "top")


def _model(document: dict[str, Any], own: dict[str | None, list[int]]) -> Fold:
    modules = document["modules"]
    folds = {
        path: Fold(f"m:{path}", "module", path or document["model"], facts["type"] if path else "")
        for path, facts in modules.items()
    }
    parents: dict[str, list[Fold | int]] = {path: [] for path in folds}
    for path, fold in folds.items():
        if path:
            parents[path.rpartition(".")[0]].append(fold)
    # Deepest first, so that a parent finds its children complete.
    for path in sorted(folds, key=lambda path: -path.count(".") - bool(path)):
        fold, calls = folds[path], modules[path]["calls"]
        children = [
            part for child in parents[path] for part in _apart(_without_wrapper(child), modules)
        ]
        fold.repeated = max(calls, 1)
        if calls > 1:
            fold.subtitle = f"{modules[path]['type']} × {calls}"
            children += _by_call(own.get(path, []), document["nodes"], fold.key)
        else:
            fold.subtitle = " · ".join(filter(None, (fold.subtitle, _repeats(children))))
            children += _by_line(own.get(path, []), document["nodes"], fold.key)
        fold.children = _crowded(_in_order(children), fold.key)
    return folds[""]


def _without_wrapper(child: Fold | int) -> Fold | int:
    """A module that holds nothing but one other module is drawn as that one."""
    while isinstance(child, Fold) and child.kind == "module" and len(child.children) == 1:
        inner = child.children[0]
        if not (isinstance(inner, Fold) and inner.kind == "module"):
            break
        child = inner
    return child


def _apart(child: Fold | int, modules: dict[str, Any]) -> list[Fold | int]:
    """The few calls of a module without parameters, such as a ReLU used twice, stand where they
    happen: as one box they would tie knots into the graph."""
    if not (isinstance(child, Fold) and child.kind == "module" and 1 < child.repeated <= FEW_CALLS):
        return [child]
    calls = [call for call in child.children if isinstance(call, Fold) and call.kind == "call"]
    if len(calls) < len(child.children):
        return [child]
    for call in calls:
        call.kind = "module"
        call.title = f"{child.title} · {call.title}"
        call.subtitle = modules[child.key.removeprefix("m:")]["type"]
    return list(calls)


def _repeats(children: list[Fold | int]) -> str:
    types = Counter(child.subtitle for child in children if isinstance(child, Fold))
    if len(types) != 1 or (count := types.total()) < 2:
        return ""
    only = next(iter(types)).partition(" · ")[0]
    return f"{count} × {only}"


def _by_call(own: list[int], nodes: list[dict[str, Any]], key: str) -> list[Fold | int]:
    loose: list[Fold | int] = []
    calls: dict[int, Fold] = {}
    for position in own:
        if nodes[position]["accumulated"] is not None:
            loose.append(position)
            continue
        number = nodes[position]["call"]
        if number not in calls:
            calls[number] = Fold(f"{key}#{number}", "call", f"call {number}")
        calls[number].children.append(position)
    for fold in calls.values():
        fold.subtitle = f"{len(fold.children)} ops"
        fold.children = _crowded(fold.children, fold.key)
    return [*loose, *calls.values()]


def _by_line(own: list[int], nodes: list[dict[str, Any]], key: str) -> list[Fold | int]:
    """Few operations stand for themselves; many are gathered by the line that made them."""
    if len(own) <= CROWD:
        return list(own)
    lines: dict[tuple[str, int], list[int]] = {}
    for position in own:
        lines.setdefault((nodes[position]["file"], nodes[position]["line"]), []).append(position)
    items: list[Fold | int] = []
    for (file, line), members in lines.items():
        leaves = [p for p in members if nodes[p]["accumulated"] is not None]
        if not file or len(members) == 1:
            items += members
            continue
        items += leaves
        fold = Fold(f"{key}@{PurePath(file).name}:{line}", "lines", f"{PurePath(file).name}:{line}")
        ops = Counter(nodes[position]["op"] for position in members)
        op, count = ops.most_common(1)[0]
        more = f" and {len(ops) - 1} more" if len(ops) > 1 else ""
        fold.subtitle = f"{op} × {count}{more}"
        fold.children = _crowded(list(members), fold.key)
        items.append(fold)
    return items


def _crowded(children: list[Fold | int], key: str) -> list[Fold | int]:
    """At most CROWD children or so: longer lists are cut into ranges of 10, 100, … each."""
    if len(children) <= CROWD:
        return children
    loose = [child for child in children if isinstance(child, int)]
    if 0 < len(loose) <= FEW:
        folds: list[Fold | int] = [child for child in children if isinstance(child, Fold)]
        return loose + _crowded(folds, key)
    size = 10
    while len(children) > size * CROWD:
        size *= 10
    ranges: list[Fold | int] = []
    for start in range(0, len(children), size):
        part = children[start : start + size]
        inner_key = f"{key}[{start}:{start + len(part)}]"
        titles = [item.title for item in part if isinstance(item, Fold)]
        title = (
            f"{titles[0]} … {titles[-1]}" if titles else f"ops {start} … {start + len(part) - 1}"
        )
        subtitles = {item.subtitle for item in part if isinstance(item, Fold)}
        each = f" × {subtitles.pop()}" if len(subtitles) == 1 else " parts"
        ranges.append(
            Fold(inner_key, "range", title, f"{len(part)}{each}", _crowded(part, inner_key))
        )
    return ranges


def _in_order(children: list[Fold | int]) -> list[Fold | int]:
    # Leaves stand anywhere, so a fold's place is that of its first member in the forward order.
    return sorted(children, key=lambda c: c if isinstance(c, int) else min(c.members(), default=0))
