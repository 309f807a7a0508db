"""Turns the graph behind a loss into a plain JSON document and lets go of it."""

from __future__ import annotations

import contextlib
import gc
import linecache
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node

from inspector.autograd.norms import NodeNorms, as_record
from inspector.autograd.owners import GraphTags, Owner, tagged_owner
from inspector.autograd.portrait import plain
from inspector.autograd.saved import Storages, address, saved_tensors
from inspector.autograd.times import NodeTimes, Stopwatch
from inspector.autograd.torchviz_text import torchviz_dot
from inspector.autograd.walk import Walk, leaf_of, walk

FORMAT = 1


_MOST_TEXT = 200  # characters of a source line


class PendingGraph:
    """A captured graph that waits for the backward pass to add what it measures.

    Attributes:
        torchviz: torchviz's DOT text, or None; ``finish()["torchviz"]`` says why.
    """

    def __init__(
        self,
        document: dict[str, Any],
        *,
        norms: NodeNorms | None = None,
        times: NodeTimes | None = None,
        storages: Storages | None = None,
        loss: torch.Tensor | None = None,
        torchviz: str | None = None,
    ) -> None:
        self._document = document
        self._norms = norms
        self._times = times
        self._storages = storages
        self._loss = loss
        self.torchviz = torchviz

    def finish(self) -> dict[str, Any]:
        """The document of kind ``graph``; takes the hooks off and moves the norms to the host.

        Call it after ``backward()``. Without gradients it may be called at once. A second call
        returns the same document.
        """
        nodes, notes = self._document["nodes"], self._document["notes"]
        if self._norms is not None:
            values = self._norms.collect()
            for position, record in enumerate(nodes):
                record.update(as_record(values.get(position)))
            if self._norms.failure:
                notes.append(f"Gradient norms are incomplete: {self._norms.failure}.")
            self._norms = None
        if self._times is not None:
            for position, facts in self._times.collect().items():
                nodes[position].update(facts)
            if self._times.failure:
                notes.append(f"Times are incomplete: {self._times.failure}.")
            self._times = None
        if self._storages is not None:
            self._storages.settle()
            self._storages = None
        if self._loss is not None:
            self._document["loss"] = plain(float(self._loss)) if self._loss.numel() == 1 else None
            self._loss = None
        return self._document

    def cancel(self) -> None:
        """Takes the hooks off and forgets the norms."""
        for measuring in (self._norms, self._times):
            if measuring is not None:
                measuring.remove()
        self._norms = self._times = self._storages = self._loss = None


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
        gradients: whether to measure gradient norm, time and order at every node of the next
            backward pass.
        tags: what was installed during the forward pass; without it only the modules of
            parameters and of the operations that use them directly are known.
        accumulated: backward passes that are already piled up in ``.grad``.
        torchviz: whether to make torchviz's DOT text too.
    """
    start = time.perf_counter()
    document: dict[str, Any] = {
        "format": FORMAT, "step": step, "model": type(model).__name__, "complete": True,
        "nodes": [], "edges": [], "modules": {}, "calls": [], "source": {}, "notes": [],
        "loss": None, "saved_bytes": 0, "kept_bytes": 0, "clock": "host", "torchviz": "",
        "seconds": 0.0,
    }  # fmt: skip
    root = loss.grad_fn if isinstance(loss, torch.Tensor) else None
    if root is None:
        document["notes"].append(_why_no_graph(loss))
        document["torchviz"] = "There is no graph."
        return PendingGraph(document)
    text, reason = None, "It was not asked for."
    with _collector_at_rest():
        found = walk(root)
        storages = _describe(document, found, model, tags, accumulated)
        if torchviz:
            text, reason = torchviz_dot(loss, model, nodes=len(found.nodes))
        norms = NodeNorms(found.nodes) if gradients else None
        stopwatch = Stopwatch(loss.device)
        times = NodeTimes(found.nodes, stopwatch) if gradients else None
    document["clock"] = stopwatch.clock
    document["torchviz"] = reason
    document["seconds"] = time.perf_counter() - start
    return PendingGraph(
        document, norms=norms, times=times, storages=storages, loss=loss.detach(), torchviz=text
    )


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
) -> Storages:
    names = _parameter_names(model)
    addresses = {address(tensor): "/".join(names[id(tensor)]) for tensor in model.parameters()}
    addresses.pop(0, None)
    storages = Storages(addresses)
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
                accumulated=0 if variable.grad is None else accumulated,
            )
        else:
            saved = saved_tensors(node, storages)
            record["saved"] = saved
            record["saved_bytes"] = sum(s["bytes"] for s in saved if s["parameter"] is None)
        document["nodes"].append(record)
    document["edges"] = [list(edge) for edge in found.edges]
    document["complete"] = found.complete
    document["saved_bytes"] = sum(record["saved_bytes"] for record in document["nodes"])
    document["kept_bytes"] = storages.bytes
    calls = [] if tags is None or tags.calls is None else tags.calls.records()
    types = {path: type(module).__name__ for path, module in model.named_modules()}
    document["calls"] = [
        call | {"type": types.get(call["module"], "")}
        for call in _renumber_calls(document["nodes"], calls)
    ]
    document["modules"] = _modules(document["nodes"], types)
    document["source"] = _source(document["nodes"])
    document["notes"] += _notes(document, tagged=None not in known_owners)
    return storages


def _operation(position: int, node: Node, owner: Owner) -> dict[str, Any]:
    shape, dtype, outputs = _output(node)
    return {
        "id": position, "op": node.name().rpartition("::")[2], "module": owner.module,
        "call": owner.call, "file": owner.file, "line": owner.line,
        "shape": shape, "dtype": dtype, "outputs": outputs,
        "parameter": None, "accumulated": None, "saved": [], "saved_bytes": 0,
        "grad_norm": None, "nonfinite": "", "backward_us": None, "order": None,
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


def _renumber_calls(
    records: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Counts each module's calls from 0 within this graph; leaves belong to no call.

    Returns:
        The calls with the same numbers, without those of another forward pass. Calls that left
        nothing in the graph (frozen modules) are counted on after those that did.
    """
    seen: dict[str, set[int]] = {}
    for record in records:
        if record["module"] is not None and record["accumulated"] is None:
            seen.setdefault(record["module"], set()).add(record["call"])
    known = {(module, number) for module, numbers in seen.items() for number in numbers}
    calls = _of_this_pass(calls, known)
    for call in calls:
        seen.setdefault(call["module"], set()).add(call["call"])
    rank = {
        (module, number): place
        for module, numbers in seen.items()
        for place, number in enumerate(
            sorted(numbers, key=lambda number: ((module, number) not in known, number))
        )
    }
    for record in records:
        if record["module"] is not None and record["accumulated"] is None:
            record["call"] = rank[record["module"], record["call"]]
    for call in calls:
        call["call"] = rank[call["module"], call["call"]]
    return calls


def _of_this_pass(calls: list[dict[str, Any]], known: set[tuple[str, int]]) -> list[dict[str, Any]]:
    """The calls inside of an outermost call that made a part of the graph, renumbered."""
    outermost: list[int] = []
    for position, call in enumerate(calls):
        outermost.append(position if call["inside"] is None else outermost[call["inside"]])
    ours = {
        outermost[position]
        for position, call in enumerate(calls)
        if (call["module"], call["call"]) in known
    }
    kept = [position for position in range(len(calls)) if outermost[position] in ours]
    place = {old: new for new, old in enumerate(kept)}
    for position in kept:
        call = calls[position]
        call["inside"] = place.get(call["inside"])
        call["after"] = [place[maker] for maker in call["after"] if maker in place]
    return [calls[position] for position in kept]


def _source(records: list[dict[str, Any]]) -> dict[str, str]:
    """Text of each source line, so that it can be shown where the file is not."""
    places = {(record["file"], record["line"]) for record in records if record["file"]}
    return {
        f"{file}:{line}": text[:_MOST_TEXT]
        for file, line in sorted(places)
        if (text := linecache.getline(file, line).strip())
    }


def _modules(records: list[dict[str, Any]], types: dict[str, str]) -> dict[str, dict[str, Any]]:
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
