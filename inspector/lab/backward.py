"""Notices the backward passes of a snippet and describes the graph of each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from inspector.autograd import GraphTags, capture_graph, values
from inspector.autograd.values import NodeGradients, plain, tag, tagged_value
from inspector.autograd.walk import leaf_of, walk
from inspector.lab.report import GraphRecord

MOST_GRAPHS = 4
MOST_NODES = 6000
# What lies between a snippet's line and the engine: PyTorch's own methods, and our mode.
_BETWEEN = (
    str(Path(torch.__file__).parent / "_tensor.py"),
    str(Path(torch.__file__).parent / "overrides.py"),
    str(Path(values.__file__)),
)


class Backwards:
    """While entered, ``backward()`` and ``autograd.grad()`` called by the snippet are recorded.

    Attributes:
        graphs: of the first few passes; their nodes carry name, value and gradient.
        notes: sentences for the reader.
    """

    def __init__(self, file: str, names: dict[str, Any]) -> None:
        self.graphs: list[GraphRecord] = []
        self.notes: list[str] = []
        self._file = file
        self._names = names
        self._passes = 0
        self._tags = GraphTags(nn.Module())
        self._originals = (torch.autograd.backward, torch.autograd.grad)

    def __enter__(self) -> Backwards:
        self._tags.install()
        torch.autograd.backward = self._wrapped(torch.autograd.backward, "backward")
        torch.autograd.grad = self._wrapped(torch.autograd.grad, "autograd.grad")
        return self

    def __exit__(self, *_: object) -> None:
        torch.autograd.backward, torch.autograd.grad = self._originals
        self._tags.remove()
        left = self._passes - len(self.graphs)
        if left > 0 and self.graphs:
            self.notes.append(
                f"The graphs of the first {len(self.graphs)} of {self._passes} backward passes "
                "are kept."
            )

    def add_last_tensor(self) -> None:
        """Where nothing went backward: the graph of ``loss``, or of the tensor named last."""
        if self.graphs or self._passes:
            return
        made = {
            name: value
            for name, value in self._names.items()
            if isinstance(value, torch.Tensor) and value.grad_fn is not None
        }
        if made:
            name = "loss" if "loss" in made else list(made)[-1]
            self._record(made[name], f"graph of {name}", 0, self._names, None)

    def line_of(self, op: str) -> int:
        """The line that made the last node whose kind begins so, such as ``Exp``; 0 if none."""
        for graph in reversed(self.graphs):
            for node in reversed(graph.document["nodes"]):
                if node["op"].startswith(op) and node["file"] == self._file:
                    return int(node["line"])
        return 0

    def _wrapped(self, original: Any, kind: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            frame = self._caller(sys._getframe(1))
            if frame is None:
                return original(*args, **kwargs)
            self._passes += 1
            named = [kwargs[name] for name in ("tensors", "outputs") if name in kwargs]
            root = next(iter((*args, *named)), None)
            if isinstance(root, Sequence) and root:
                root = root[0]
            if len(self.graphs) >= MOST_GRAPHS or not isinstance(root, torch.Tensor):
                return original(*args, **kwargs)
            names = {**self._names, **frame.f_locals}
            label = f"{kind}, line {frame.f_lineno}"
            return self._record(
                root, label, frame.f_lineno, names, lambda: original(*args, **kwargs)
            )

        return call

    def _caller(self, frame: FrameType | None) -> FrameType | None:
        """The snippet's frame if it called directly; what PyTorch calls inside is not its own."""
        while frame is not None and frame.f_code.co_filename in _BETWEEN:
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename == self._file:
            return frame
        return None

    def _record(
        self, root: torch.Tensor, label: str, line: int, names: dict[str, Any], backward: Any
    ) -> Any:
        model = _Names(names)
        nodes = [] if root.grad_fn is None else walk(root.grad_fn).nodes
        if len(nodes) > MOST_NODES:
            self.notes.append(f"Not drawn, as it has {len(nodes):,} nodes: {label}.")
            return None if backward is None else backward()
        _tag_named(names)
        gradients = NodeGradients(nodes)
        pending = capture_graph(
            root, model, step=len(self.graphs), tags=self._tags, torchviz=False,
            gradients=backward is not None,
        )  # fmt: skip
        called = _called(names)
        try:
            return None if backward is None else backward()
        finally:
            arrived = gradients.collect()
            document = pending.finish()
            for position, (node, record) in enumerate(zip(nodes, document["nodes"], strict=True)):
                leaf = leaf_of(node)
                record["value"] = tagged_value(node) if leaf is None else plain(leaf)
                record["gradient"] = arrived.get(position)
                record["name"] = record["parameter"] or called.get(node)
                record["grad_after"] = None if leaf is None else plain(leaf.grad)
            if nodes:
                self.graphs.append(GraphRecord(label=label, line=line, document=document))


class _Names(nn.Module):
    """The variables of a snippet as if they were the parameters of a model."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__()
        self._leaves: dict[str, torch.Tensor] = {}
        for name, value in names.items():
            if name.startswith("_"):
                continue
            if isinstance(value, torch.Tensor):
                if value.is_leaf and value.requires_grad:
                    self._leaves[name] = value
            elif isinstance(value, nn.Module) and name.isidentifier() and not hasattr(self, name):
                self.add_module(name, value)
            elif isinstance(value, (list, tuple)):
                for number, item in enumerate(value):
                    if isinstance(item, torch.Tensor) and item.is_leaf and item.requires_grad:
                        self._leaves[f"{name}[{number}]"] = item

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        inside = list(super().named_parameters(*args, **kwargs))
        known = {id(parameter) for _, parameter in inside}
        yield from inside
        yield from (item for item in self._leaves.items() if id(item[1]) not in known)


def _tag_named(names: dict[str, Any]) -> None:
    """Values of named tensors whose operation could not be seen, such as a custom Function's."""
    for value in names.values():
        made = value.grad_fn if isinstance(value, torch.Tensor) else None
        if made is not None and tagged_value(made) is None:
            tag(value)


def _called(names: dict[str, Any]) -> dict[Any, str]:
    return {
        value.grad_fn: name
        for name, value in names.items()
        if isinstance(value, torch.Tensor) and value.grad_fn is not None
    }
