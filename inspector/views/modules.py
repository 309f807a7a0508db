"""The run's modules as rows of a table: shapes, parameters, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """One module call, in call order.

    Attributes:
        path: as in ``named_modules()``; the root module reads ``(model)``.
        inputs, outputs: shapes such as ``64×1×8×8``; several tensors are joined by a comma.
        parameters, trainable: number of elements of the module's own parameters.
        bytes: memory of its own parameters.
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


def rows(document: dict[str, Any] | None) -> list[ModuleRow]:
    """The rows of the run's ``modules`` document; none when it was not recorded yet."""
    modules = (document or {}).get("modules", [])
    return [_row(order, module) for order, module in enumerate(modules)]


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
    path = str(module.get("path", "")) or "(model)"
    call = int(module.get("call_index", 0) or 0)
    return ModuleRow(
        order=order,
        path=f"{path} #{call + 1}" if call else path,
        type=str(module.get("type", "")),
        inputs=", ".join(shape(sizes) for sizes in module.get("inputs", [])),
        outputs=", ".join(shape(sizes) for sizes in module.get("outputs", [])),
        dtype=str(module.get("dtype") or "").removeprefix("torch."),
        parameters=parameters,
        trainable=trainable,
        state=_state(parameters, trainable),
        bytes=int(module.get("bytes", 0)),
        output_bytes=int(module.get("output_bytes", 0)),
        note=str(module.get("badge") or ""),
    )


def _state(parameters: int, trainable: int) -> str:
    if not parameters:
        return ""
    if trainable == parameters:
        return "trainable"
    return "frozen" if not trainable else "partly frozen"
