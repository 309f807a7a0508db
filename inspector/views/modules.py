"""The run's modules as rows of a table: shapes, parameters, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ROOT = "(model)"
_HOLDERS = frozenset({"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """One module.

    Attributes:
        order: position in the table.
        path: as in ``named_modules()``; the root module reads ``(model)``.
        inputs, outputs: shapes such as ``64×1×8×8``; several tensors are joined by a comma.
        parameters, trainable: number of elements of its parameters and of those inside it.
        bytes: memory of those parameters.
        output_bytes: memory of its output.
        note: why something is missing (never ran, compiled, …), else empty.
    """

    order: int
    path: str
    type: str
    inputs: str
    outputs: str
    dtype: str
    parameters: int
    trainable: int
    state: str
    bytes: int
    output_bytes: int
    note: str


@dataclass(frozen=True, slots=True)
class Totals:
    """The model as a whole; ``output_bytes`` adds up the outputs of modules without children."""

    modules: int
    parameters: int
    trainable: int
    bytes: int
    output_bytes: int


def rows(document: dict[str, Any] | None) -> list[ModuleRow]:
    """Rows in call order, each module before those inside it; modules that never ran come last.

    Empty when the run's ``modules`` document was not recorded yet.
    """
    modules = list((document or {}).get("modules", []))
    first: dict[str, int] = {}
    for module in modules:
        call = int(module.get("call_index", -1))
        if call >= 0:
            for path in _ancestry(str(module["path"])):
                first[path] = min(first.get(path, call), call)
    never = len(modules)
    modules.sort(key=lambda module: (first.get(module["path"], never), _depth(module["path"])))
    return [_row(order, module) for order, module in enumerate(modules)]


def totals(table: Sequence[ModuleRow]) -> Totals:
    """Sums for the head of the page; shared parameters count once."""
    root = next((row for row in table if row.path == ROOT), None)
    parents = {path for row in table for path in _ancestry(row.path)[1:]}
    return Totals(
        modules=len(table),
        parameters=root.parameters if root else 0,
        trainable=root.trainable if root else 0,
        bytes=root.bytes if root else 0,
        output_bytes=sum(
            row.output_bytes for row in table if row.path not in parents and row.path != ROOT
        ),
    )


def matching(table: Sequence[ModuleRow], text: str) -> list[ModuleRow]:
    """Rows that contain every word of ``text`` in their path, type or shapes."""
    words = text.lower().split()
    return [
        row
        for row in table
        if all(
            word in f"{row.path} {row.type} {row.inputs} {row.outputs} {row.note}".lower()
            for word in words
        )
    ]


def shape(sizes: Sequence[Any]) -> str:
    """``64×1×8×8``; a scalar reads ``scalar``."""
    return "×".join(str(size) for size in sizes) if sizes else "scalar"


def bytes_text(count: float) -> str:
    """``12.3 MB``, in powers of 1000; empty for nothing."""
    if not count:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _row(order: int, module: dict[str, Any]) -> ModuleRow:
    parameters, trainable = int(module.get("parameters", 0)), int(module.get("trainable", 0))
    kind = str(module.get("type", ""))
    return ModuleRow(
        order=order,
        path=str(module.get("path", "")) or ROOT,
        type=kind,
        inputs=", ".join(shape(sizes) for sizes in module.get("inputs", [])),
        outputs=", ".join(shape(sizes) for sizes in module.get("outputs", [])),
        dtype=str(module.get("dtype") or "").removeprefix("torch."),
        parameters=parameters,
        trainable=trainable,
        state=_state(parameters, trainable),
        bytes=int(module.get("bytes", 0)),
        output_bytes=int(module.get("output_bytes", 0)),
        # A list of modules is never called itself; to say so would alarm.
        note="" if kind in _HOLDERS else str(module.get("badge") or ""),
    )


def _ancestry(path: str) -> list[str]:
    """The path, its parents, and the root: ``a.b`` → ``a.b``, ``a``, ``""``."""
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _state(parameters: int, trainable: int) -> str:
    if not parameters:
        return ""
    if trainable == parameters:
        return "trainable"
    return "frozen" if not trainable else "partly frozen"
