"""Where a loss that the script computes by itself has become NaN: out of its autograd graph.

The model's part of the graph is told from the loss's by what the model, called once more, makes. Of
the loss's part autograd has kept some operands and results; between the last that are finite and
the first that are not lies the operation. Its line is that which the script gave its result a name.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor
from torch.autograd.graph import Node

from inspector.autograd.saved import unpacked_by_name
from inspector.autograd.walk import Walk, leaf_of, walk
from inspector.events import Origin
from inspector.timemachine.births import describe
from inspector.timemachine.checks import count_nonfinite
from inspector.timemachine.places import Place, is_users

_BACKWARD = re.compile(r"Backward\d*$")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_CANDIDATES = 32  # places in the graph that are compared with the model's end
_FIRST, _SECOND = ("self", "input"), ("other", "target")
_RESULTS = ("result", "output")
_LOGARITHMS = {"log": torch.log, "log2": torch.log2, "log10": torch.log10, "log1p": torch.log1p}
MAKERS = {
    *_LOGARITHMS, "acos", "acosh", "asin", "atanh", "binary_cross_entropy", "cdist", "div",
    "erfinv", "exp", "exp2", "expm1", "kl_div", "linalg_vector_norm", "log_softmax", "logit",
    "nll_loss", "nll_loss2d", "norm", "pow", "reciprocal", "rsqrt", "softmax", "sqrt", "tan",
    "xlogy",
}  # fmt: skip
"""Operations that make NaN or infinity out of ordinary numbers; others only out of huge ones."""


@dataclass(slots=True)
class _Known:
    """Of an operation: whether its result is bad, where autograd has kept it; what it was given."""

    bad: bool | None = None
    result: Tensor | None = None
    given: dict[str, Tensor] = field(default_factory=dict)
    constant: bool = False


def born_in_loss(loss: Tensor, end: Node, batch: int) -> Origin | None:
    """The operation that made the loss NaN or infinite, out of finite outputs of the model.

    Args:
        end: the last node of the same model, called in the same way.
        batch: samples in the batch.

    Returns:
        None where the graph does not tell.
    """
    if loss.grad_fn is None:
        return None
    graph = walk(loss.grad_fn)
    own = outside_of(end, graph) if graph.complete else None
    if not own:
        return None
    known = _look(graph, own)
    root = graph.nodes.index(loss.grad_fn)
    known[root].bad, known[root].result = True, loss.detach()
    producers: dict[int, list[int]] = {}
    for producer, consumer in graph.edges:
        if producer in known and consumer in known:
            producers.setdefault(consumer, []).append(producer)
    first = next(
        at for at in sorted(known)
        if known[at].bad and not any(known[p].bad for p in producers.get(at, ()))
    )  # fmt: skip
    suspects = sorted(_unknown_before(first, known, producers) | {first})
    makers = [at for at in suspects if operation_of(graph.nodes[at]) in MAKERS] or [first]
    born = makers[-1]
    names = list(dict.fromkeys(operation_of(graph.nodes[at]) for at in reversed(makers)))
    given = any(known[at].constant for at in suspects)
    place = place_in_script(graph, born, set(known))
    bad = next(known[at].result for at in sorted(known) if at >= born and known[at].bad)
    assert bad is not None
    note = f"Its result was not kept: it may be that of {' or '.join(names[1:])} as well."
    return Origin(
        phase="data" if given else "forward",
        op="what the loss was given beside the model's output" if given else names[0],
        in_loss=True,
        file=place.file,
        line=place.line,
        code=place.code,
        value="NaN" if bool(torch.isnan(bad).any()) else "infinity",
        tensors=[describe(name, tensor) for name, tensor in known[born].given.items()],
        samples=_samples(bad, batch),
        batch=batch,
        chain=_chain(graph, born, set(known)),
        how="read from the loss's autograd graph",
        note=note if len(names) > 1 and not given else "",
    )


def outside_of(end: Node, graph: Walk) -> set[int]:
    """Positions of the nodes that the model has not made; none where its end is not found."""
    looked_for = Counter(node.name() for node in walk(end).nodes)
    named = [node for node in graph.nodes if node.name() == end.name()]
    inside: set[Node] = set()
    for node in named[-_CANDIDATES:]:
        below = walk(node).nodes
        if Counter(each.name() for each in below) == looked_for:
            inside.update(below)
    if not inside:
        return set()
    return {
        at for at, node in enumerate(graph.nodes) if node not in inside and leaf_of(node) is None
    }


def _look(graph: Walk, own: set[int]) -> dict[int, _Known]:
    """What autograd has kept of these operations, and so of those that they follow."""
    places = {node: at for at, node in enumerate(graph.nodes)}
    known = {at: _Known() for at in sorted(own)}
    for at in known:
        node = graph.nodes[at]
        before = [producer for producer, _ in node.next_functions]
        for name, tensor in unpacked_by_name(node):
            bad = count_nonfinite(tensor) > 0
            if name in _RESULTS:
                known[at].bad, known[at].result = bad, tensor
                continue
            known[at].given[name] = tensor
            number = 0 if name in _FIRST else 1 if name in _SECOND else len(before)
            producer = before[number] if number < len(before) else None
            maker = known.get(places[producer]) if producer in places else None
            if maker is not None and maker.bad is None:
                maker.bad, maker.result = bad, tensor
            elif producer is None and name in (*_FIRST, *_SECOND):
                known[at].constant |= bad
    for at, one in known.items():  # of a logarithm only the operand is kept
        if one.bad is None and (again := _LOGARITHMS.get(operation_of(graph.nodes[at]))):
            one.result = again(one.given["self"].detach()) if "self" in one.given else None
            one.bad = None if one.result is None else count_nonfinite(one.result) > 0
    return known


def _unknown_before(
    first: int, known: dict[int, _Known], producers: dict[int, list[int]]
) -> set[int]:
    """The operations right before it of which nothing is known."""
    found: set[int] = set()
    pending = [first]
    while pending:
        for at in producers.get(pending.pop(), ()):
            if known[at].bad is None and at not in found:
                found.add(at)
                pending.append(at)
    return found


def operation_of(node: Node) -> str:
    """``log_softmax`` for ``LogSoftmaxBackward0``."""
    name = _BACKWARD.sub("", node.name().rpartition("::")[2])
    return _WORDS.sub("_", name).lower()


def _chain(graph: Walk, born: int, own: set[int]) -> list[str]:
    """The operations that have passed it on."""
    names = [operation_of(graph.nodes[at]) for at in sorted(behind(graph, born, own) - {born})]
    return list(dict.fromkeys(names))[:12]


def behind(graph: Walk, at: int, own: set[int]) -> set[int]:
    """Positions of a node and of those of the loss that its result reaches."""
    reached = {at}
    for producer, consumer in graph.edges:
        if producer in reached and consumer in own:
            reached.add(consumer)
    return reached


def _samples(bad: Tensor, batch: int) -> list[int]:
    if not batch or not bad.dim() or bad.shape[0] != batch:
        return []
    rows = ~torch.isfinite(bad).reshape(batch, -1).all(dim=1)
    return [int(at) for at in rows.nonzero().flatten()[:32]]


# ---------------------------------------------------------------- the line


def place_in_script(graph: Walk, born: int, own: set[int]) -> Place:
    """Where the script, which is calling us, has named the operation's result, or what follows."""
    places = {graph.nodes[at]: at for at in own}
    after = behind(graph, born, own)
    for frame in scripts_frames():
        found = [(places[t.grad_fn], name) for name, t in computed(frame) if t.grad_fn in places]
        for at, name in sorted(found):
            if at in after and (line := _assigned(frame, name)):
                return Place(None, frame.f_code.co_filename, line)
    return Place()


def scripts_frames() -> Iterator[FrameType]:
    """Frames of the script that is calling us, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def computed(frame: FrameType) -> list[tuple[str, Tensor]]:
    """Names and tensors in a frame that autograd knows the operation of."""
    return [
        (name, value)
        for name, value in frame.f_locals.items()
        if isinstance(value, Tensor) and value.grad_fn is not None
    ]


def _assigned(frame: FrameType, name: str) -> int:
    """The last line before the one that runs at which the name is given a value; 0 if none."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except SyntaxError:
        return 0
    begin = frame.f_code.co_firstlineno
    found = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name
    ]
    return max((line for line in found if begin <= line <= frame.f_lineno), default=0)
