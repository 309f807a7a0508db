"""Records one backward pass node by node, in the engine's order, as a plain document."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from inspector.autograd.calls import Calls
from inspector.autograd.capture import capture_graph
from inspector.autograd.gradcheck import check_node
from inspector.autograd.owners import GraphTags
from inspector.autograd.portrait import bad, portrait
from inspector.autograd.rules import rule_of
from inspector.autograd.walk import leaf_of, walk

FORMAT = 1
MOST_NODES = 3000
CHECK_SECONDS = 1.0
_MOST_KEPT = 1 << 18  # elements of one gradient that is kept for the numerical check
_MANY = 300  # nodes; of larger graphs the maps are coarser
_RECENT = 6


@dataclass(slots=True)
class _Visit:
    """One node as the engine ran it."""

    node: int
    incoming: list[dict[str, Any] | None]
    outgoing: list[dict[str, Any] | None] = field(default_factory=list)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    arrived: list[Tensor | None] | None = None
    sent: list[Tensor | None] | None = None


class BackwardRecording:
    """Watches the next backward pass of ``loss``; ``finish()`` turns it into a document.

    Make it between forward and backward. The document of kind ``backward`` holds the graph's
    ``nodes`` and ``edges`` (see ``capture_graph``; each node also has ``name``, the ``value`` it
    produced, its ``rule``) and ``visits`` in the engine's order: ``node``; ``incoming`` and
    ``outgoing`` portraits, one for each output and each input of the operation, ``to`` naming
    the node that receives it; at leaves ``before`` and ``after``, the portraits of ``.grad``;
    and ``check``, the result of the finite differences.

    Args:
        calls: what ran during the forward pass; without it nothing can be checked node by node.
        names: name by node, such as the variables of an expression.
        check_seconds: time for all numerical checks together.
    """

    def __init__(
        self,
        loss: Tensor,
        model: nn.Module,
        *,
        step: int,
        tags: GraphTags | None = None,
        calls: Calls | None = None,
        names: dict[Node, str] | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        pending = capture_graph(loss, model, step=step, tags=tags, gradients=False, torchviz=False)
        self.document = pending.finish()
        self.document |= {
            "format": FORMAT,
            "loss": portrait(loss),
            "visits": [],
            "nonfinite": False,
        }
        self._calls = calls
        self._check_seconds = check_seconds
        self._handles: list[RemovableHandle] = []
        self._nodes: list[Node] = []
        self._visits: list[_Visit] = []
        self._open: dict[int, _Visit] = {}
        self._known: list[tuple[Tensor, int, dict[str, Any] | None]] = []
        self._rows = 16
        self.failure = ""
        if loss.grad_fn is not None:
            self._attach(loss.grad_fn, names or {})

    def finish(self) -> dict[str, Any]:
        """Takes the hooks off, checks, and returns the document; call it after ``backward()``."""
        self.cancel()
        self._known.clear()
        self.document["nonfinite"] = self.nonfinite
        checks = self._checked()
        index = {node: place for place, node in enumerate(self._nodes)}
        for visit in self._visits:
            self.document["visits"].append(self._plain(visit, index, checks.get(visit.node)))
        self._visits.clear()
        if self._nodes and not self.document["visits"]:
            self.document["notes"].append(
                "No backward pass followed: call watch.record(loss=loss) before loss.backward()."
            )
        self._nodes.clear()
        if self.failure:
            self.document["notes"].append(f"The recording is incomplete: {self.failure}.")
        if self._calls is not None:
            self._calls.forget()
        return self.document

    def cancel(self) -> None:
        """Takes the hooks off; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def drop(self) -> None:
        """Ends the recording without a document."""
        self.cancel()
        self._visits.clear()
        self._nodes.clear()
        self._known.clear()
        if self._calls is not None:
            self._calls.forget()

    @property
    def nonfinite(self) -> bool:
        """Whether a gradient of the recorded pass was NaN or infinite."""
        return any(
            bad(record)
            for visit in self._visits
            for record in (*visit.incoming, *visit.outgoing, visit.after)
        )

    # ------------------------------------------------------------ the hooks

    def _attach(self, root: Node, names: dict[Node, str]) -> None:
        nodes = walk(root).nodes
        if len(nodes) > MOST_NODES:
            self.document["notes"].append(
                f"The graph has {len(nodes):,} nodes; only those of graphs with at most "
                f"{MOST_NODES:,} are recorded one by one."
            )
            return
        self._nodes = nodes
        self._rows = 16 if len(nodes) <= _MANY else 4
        for place, (node, record) in enumerate(zip(nodes, self.document["nodes"], strict=True)):
            leaf = leaf_of(node)
            call = self._calls.of(node) if self._calls else None
            record["name"] = record["parameter"] or names.get(node)
            record["value"] = portrait(leaf) if leaf is not None else call and call.output
            record["rule"] = _rule(record)
            self._handles.append(node.register_prehook(self._before(place, leaf)))
            self._handles.append(node.register_hook(self._after(place, leaf)))

    def _before(self, place: int, leaf: Tensor | None) -> Any:
        def prehook(gradients: tuple[Tensor | None, ...]) -> None:
            try:
                visit = _Visit(place, [self._portrait(gradient) for gradient in gradients])
                if leaf is not None:
                    visit.before = portrait(leaf.grad, rows=self._rows)
                elif self._keeps(gradients, place):
                    visit.arrived = [_copy(gradient) for gradient in gradients]
                self._open[place] = visit
                self._visits.append(visit)
            except Exception as error:  # an error here would abort the user's backward pass
                self.failure = repr(error)

        return prehook

    def _after(self, place: int, leaf: Tensor | None) -> Any:
        def hook(sent: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]) -> None:
            try:
                visit = self._open.pop(place, None)
                if visit is None:
                    return
                if leaf is not None:
                    visit.after = portrait(leaf.grad, rows=self._rows)
                    return
                visit.outgoing = [self._portrait(gradient) for gradient in sent]
                if visit.arrived is not None and self._keeps(sent, place):
                    visit.sent = [_copy(gradient) for gradient in sent]
            except Exception as error:
                self.failure = repr(error)

        return hook

    def _keeps(self, gradients: tuple[Tensor | None, ...], place: int) -> bool:
        """Whether gradients are kept whole, for the check."""
        if self._calls is None or self._calls.of(self._nodes[place]) is None:
            return False
        return sum(g.numel() for g in gradients if g is not None) <= _MOST_KEPT

    def _portrait(self, gradient: Tensor | None) -> dict[str, Any] | None:
        """A portrait; what one node sends is mostly what the next receives: it is made once."""
        if gradient is None:
            return None
        for tensor, version, known in self._known:
            if tensor is gradient and version == gradient._version:
                return known
        made = portrait(gradient, rows=self._rows)
        self._known = [(gradient, gradient._version, made), *self._known[: _RECENT - 1]]
        return made

    # ------------------------------------------------------------ the document

    def _plain(
        self, visit: _Visit, index: dict[Node, int], check: dict[str, Any] | None
    ) -> dict[str, Any]:
        following = self._nodes[visit.node].next_functions
        targets = [index.get(to) if to else None for to, _ in following]
        pairs = zip(targets, visit.outgoing, strict=False)
        return {
            "node": visit.node,
            "incoming": visit.incoming,
            "outgoing": [{"to": to, "gradient": gradient} for to, gradient in pairs],
            "before": visit.before,
            "after": visit.after,
            "check": check,
        }

    def _checked(self) -> dict[int, dict[str, Any]]:
        """Numerical checks, small nodes first, until the time for them is up."""
        if self._calls is None:
            return {}
        operations = [visit for visit in self._visits if leaf_of(self._nodes[visit.node]) is None]
        operations.sort(
            key=lambda visit: sum(t.numel() for t in visit.arrived or () if t is not None)
        )
        deadline = time.monotonic() + self._check_seconds
        checks: dict[int, dict[str, Any]] = {}
        for visit in operations:
            if time.monotonic() > deadline:
                reason = (
                    f"The {self._check_seconds:g} seconds for numerical checks were used up by "
                    "smaller nodes: check the module around it instead."
                )
                checks[visit.node] = {
                    "kind": "node", "reason": reason, "inputs": [], "difference": None,
                    "agrees": False,
                }  # fmt: skip
                continue
            call = self._calls.of(self._nodes[visit.node])
            if call is not None and call.args is not None and visit.sent is None:
                call.args = None
            with torch.no_grad():
                checks[visit.node] = check_node(call, visit.arrived or [], visit.sent or [])
        return checks


def _rule(record: dict[str, Any]) -> dict[str, Any] | None:
    rule = rule_of(record["op"])
    if rule is None:
        return None
    return {
        "forward": rule.forward, "words": rule.words, "formulas": list(rule.formulas),
        "inputs": list(rule.inputs),
    }  # fmt: skip


def _copy(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    return gradient.detach().to_dense() if gradient.is_sparse else gradient.detach().clone()
