"""Turns the graph behind a loss into a plain JSON document and lets go of it."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node

from inspector.autograd.norms import NodeNorms, as_record
from inspector.autograd.owners import GraphTags, Owner, tagged_owner
from inspector.autograd.saved import address, saved_tensors
from inspector.autograd.torchviz_text import torchviz_dot
from inspector.autograd.walk import Walk, leaf_of, walk

FORMAT = 1


class PendingGraph:
    """A captured graph that waits for the backward pass to add its gradient norms.

    Attributes:
        torchviz: torchviz's DOT text, or None; ``finish()["torchviz"]`` says why.
    """

    def __init__(
        self, document: dict[str, Any], norms: NodeNorms | None, torchviz: str | None
    ) -> None:
        self._document = document
        self._norms = norms
        self.torchviz = torchviz

    def finish(self) -> dict[str, Any]:
        """The document of kind ``graph``; takes the hooks off and moves the norms to the host.

        Call it after ``backward()``. Without gradients it may be called at once. A second call
        returns the same document.
        """
        if self._norms is not None:
            values = self._norms.collect()
            for position, record in enumerate(self._document["nodes"]):
                record.update(as_record(values.get(position)))
            if self._norms.failure:
                self._document["notes"].append(
                    f"Gradient norms are incomplete: {self._norms.failure}."
                )
            self._norms = None
        return self._document

    def cancel(self) -> None:
        """Takes the hooks off and forgets the norms."""
        if self._norms is not None:
            self._norms.remove()
            self._norms = None


def capture_graph(
    loss: torch.Tensor,
    model: nn.Module,
    *,
    step: int,
    gradients: bool = True,
    tags: GraphTags | None = None,
    accumulated: int = 0,
    torchviz: bool = True,
) -> PendingGraph:
    """Describes the autograd graph of ``loss``; call it between forward and backward.

    No node is kept: the pending graph holds records and removable hooks only. Of a loss without
    graph it makes a document without nodes and a note that says why.

    Args:
        step: the optimizer step under way, 0-based.
        gradients: whether to measure the gradient norm at every node of the next backward pass.
        tags: what was installed during the forward pass; without it only the modules of
            parameters and of the operations that use them directly are known.
        accumulated: backward passes that are already piled up in ``.grad``.
        torchviz: whether to make torchviz's DOT text too.
    """
    start = time.perf_counter()
    document: dict[str, Any] = {
        "format": FORMAT, "step": step, "model": type(model).__name__, "complete": True,
        "nodes": [], "edges": [], "modules": {}, "notes": [],
        "saved_bytes": 0, "torchviz": "", "seconds": 0.0,
    }  # fmt: skip
    root = loss.grad_fn if isinstance(loss, torch.Tensor) else None
    if root is None:
        document["notes"].append(_why_no_graph(loss))
        document["torchviz"] = "There is no graph."
        return PendingGraph(document, None, None)
    text, reason = None, "It was not asked for."
    with _collector_at_rest():
        found = walk(root)
        _describe(document, found, model, tags, accumulated)
        if torchviz:
            text, reason = torchviz_dot(loss, model, nodes=len(found.nodes))
        norms = NodeNorms(found.nodes) if gradients else None
    document["torchviz"] = reason
    document["seconds"] = time.perf_counter() - start
    return PendingGraph(document, norms, text)


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection meanwhile: all records are kept, and looking through them in vain
    would double the time of a large graph."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _describe(
    document: dict[str, Any],
    found: Walk,
    model: nn.Module,
    tags: GraphTags | None,
    accumulated: int,
) -> None:
    names = _parameter_names(model)
    storages = {address(tensor): "/".join(names[id(tensor)]) for tensor in model.parameters()}
    storages.pop(0, None)
    leaves = {
        position: variable
        for position, node in enumerate(found.nodes)
        if (variable := leaf_of(node)) is not None
    }
    known_owners = _owners(found, leaves, names, tags)
    owners = [owner or Owner(None, 0, "", 0) for owner in known_owners]
    for position, (node, owner) in enumerate(zip(found.nodes, owners, strict=True)):
        record = _operation(position, node, owner)
        if position in leaves:
            variable = leaves[position]
            known = names.get(id(variable))
            record.update(
                shape=list(variable.shape),
                dtype=str(variable.dtype).removeprefix("torch."),
                parameter="/".join(known) if known else None,
                accumulated=accumulated,
            )
        else:
            saved = saved_tensors(node, storages)
            record["saved"] = saved
            record["saved_bytes"] = sum(s["bytes"] for s in saved if s["parameter"] is None)
        document["nodes"].append(record)
    document["edges"] = [list(edge) for edge in found.edges]
    document["complete"] = found.complete
    document["saved_bytes"] = sum(record["saved_bytes"] for record in document["nodes"])
    _renumber_calls(document["nodes"])
    document["modules"] = _modules(document["nodes"], model)
    document["notes"] += _notes(document, tagged=None not in known_owners)


def _operation(position: int, node: Node, owner: Owner) -> dict[str, Any]:
    shape, dtype, outputs = _output(node)
    return {
        "id": position, "op": node.name().rpartition("::")[2], "module": owner.module,
        "call": owner.call, "file": owner.file, "line": owner.line,
        "shape": shape, "dtype": dtype, "outputs": outputs,
        "parameter": None, "accumulated": None, "saved": [], "saved_bytes": 0,
        "grad_norm": None, "nonfinite": "",
    }  # fmt: skip


def _output(node: Node) -> tuple[list[int] | None, str, int]:
    try:
        outputs = node._input_metadata  # the inputs of the backward are the forward's outputs
        first = outputs[0]
        return [int(size) for size in first.shape], str(first.dtype)[6:], len(outputs)
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return None, "", 1


def _owners(
    found: Walk,
    leaves: dict[int, torch.Tensor],
    names: dict[int, list[str]],
    tags: GraphTags | None,
) -> list[Owner | None]:
    """The owner of each node or None; a leaf belongs to the module that holds the parameter."""
    nowhere = Owner(None, 0, "", 0)
    owners: list[Owner | None] = []
    for position, node in enumerate(found.nodes):
        if position in leaves:
            # A leaf's tag may be stale: its node outlives the graph while something holds it.
            known = names.get(id(leaves[position]))
            owners.append(Owner(known[0].rpartition(".")[0], 0, "", 0) if known else nowhere)
        else:
            owners.append(tagged_owner(node) or (tags.owner(node) if tags else None))
    for producer, consumer in found.edges:
        if producer in leaves and owners[consumer] is None:
            owners[consumer] = owners[producer]
    return owners


def _parameter_names(model: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _renumber_calls(records: list[dict[str, Any]]) -> None:
    """Counts each module's calls from 0 within this graph; leaves belong to no call."""
    seen: dict[str, set[int]] = {}
    for record in records:
        if record["module"] is not None and record["accumulated"] is None:
            seen.setdefault(record["module"], set()).add(record["call"])
    rank = {
        module: {call: number for number, call in enumerate(sorted(calls))}
        for module, calls in seen.items()
    }
    for record in records:
        if record["module"] in rank and record["accumulated"] is None:
            record["call"] = rank[record["module"]][record["call"]]


def _modules(records: list[dict[str, Any]], model: nn.Module) -> dict[str, dict[str, Any]]:
    """Type and number of calls of each module in the graph and of those around it."""
    calls: dict[str, int] = {}
    for record in records:
        path = record["module"]
        if path is None:
            continue
        calls[path] = max(calls.get(path, 0), record["call"] + 1)
        while path:
            path = path.rpartition(".")[0]
            calls.setdefault(path, 0)
    types = {path: type(module).__name__ for path, module in model.named_modules()}
    return {path: {"type": types.get(path, ""), "calls": count} for path, count in calls.items()}


def _notes(document: dict[str, Any], *, tagged: bool) -> list[str]:
    notes = []
    if not document["complete"]:
        notes.append(
            f"Only the {len(document['nodes']):,} nodes nearest the loss are shown: "
            "the graph is larger."
        )
    if any("Compiled" in record["op"] for record in document["nodes"]):
        notes.append(
            "torch.compile made one node of the compiled part: autograd does not see inside."
        )
    if not tagged:
        notes.append("The forward pass was not tagged: modules of most operations are unknown.")
    return notes


def _why_no_graph(loss: object) -> str:
    if not isinstance(loss, torch.Tensor):
        return f"Expected the loss as a tensor, but got a {type(loss).__name__}."
    if loss.requires_grad:
        return "The loss is a leaf tensor: no operation led to it, so there is no graph."
    return (
        "The loss has no grad_fn: nothing that requires gradients led to it, or it was computed "
        "under torch.no_grad() or detached."
    )
