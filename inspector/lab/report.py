"""What the lab shows of one run of a snippet; the child writes it, the page reads it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """A tensor that a name of the snippet stood for when the snippet ended.

    Attributes:
        name: the variable, or ``net.0.weight`` for the parameter of a module.
        value, gradient: nested lists, or None where there is none or it is too large to list;
            statistics then say what is inside.
        grad_fn: the operation that made it, "" for a leaf.
        version: how often it was changed in place.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    requires_grad: bool
    leaf: bool
    grad_fn: str
    version: int
    value: Any = None
    gradient: Any = None
    statistics: str = ""
    gradient_statistics: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRecord:
    """The autograd graph of one backward pass, or of the last tensor when there was none.

    Attributes:
        label: such as ``backward, line 4``.
        document: a document of kind ``graph`` as ``inspector.autograd`` makes it; its nodes
            carry ``name``, ``value`` and ``gradient`` in addition (None when unknown or large).
    """

    label: str
    line: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnippetError:
    """The exception that ended a snippet.

    Attributes:
        kind: the exception's class, such as ``RuntimeError``.
        line: of the snippet, 1-based; 0 when the error lies outside of it.
        explanation: one sentence for common errors, else "".
        shapes: the shapes involved, aligned, one line an operand; "" when they do not matter.
    """

    kind: str
    message: str
    line: int = 0
    explanation: str = ""
    shapes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything known about one run of a snippet.

    Attributes:
        stopped: one sentence when the snippet did not run to its end by its own error: it took
            too long, crashed, left the process; else "".
        printed: what it printed, cut at a limit.
        notes: sentences for the reader, such as that the output was cut.
        values: name → number, text or nested list.
        seconds: wall time of the snippet itself.
    """

    stopped: str = ""
    error: SnippetError | None = None
    printed: str = ""
    notes: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorRecord, ...] = ()
    graphs: tuple[GraphRecord, ...] = ()
    plots: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.stopped and self.error is None

    def value(self, path: str) -> Any:
        """The value of a name, or of ``name.grad``.

        Raises:
            KeyError: nothing of that name was recorded.
        """
        if path in self.values:
            return self.values[path]
        wanted, dot, last = path.rpartition(".")
        for tensor in self.tensors:
            if tensor.name == path:
                return tensor.value
            if dot and last == "grad" and tensor.name == wanted:
                return tensor.gradient
        raise KeyError(path)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Report:
        fields = dict(fields)
        if fields.get("error"):
            fields["error"] = SnippetError(**fields["error"])
        fields["tensors"] = tuple(
            TensorRecord(**{**item, "shape": tuple(item["shape"])})
            for item in fields.get("tensors", ())
        )
        fields["graphs"] = tuple(GraphRecord(**item) for item in fields.get("graphs", ()))
        fields["notes"] = tuple(fields.get("notes", ()))
        fields["plots"] = tuple(fields.get("plots", ()))
        return cls(**fields)
