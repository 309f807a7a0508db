"""The run's modules as rows of a table: shapes, parameters, memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspector.store.reader import Run
from inspector.views.controls import in_force

ROOT = "(model)"
_HOLDERS = frozenset({"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})
_FITS = 24  # letters of a note in its column


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


def missing(*, live: bool) -> str:
    """What a page says that has no modules to show."""
    if live:
        return "The modules appear after the first step."
    return "This run has no modules: it ended before its first step, or is an imported log."


def recorded(run: Run) -> list[ModuleRow]:
    """Rows of a run's modules, with what is frozen now rather than at its first step."""
    before = in_force(run.config, ()).frozen
    frozen = in_force(run.config, run.events()).frozen
    return rows(run.document("modules"), released(run.document("parameters"), before, frozen))


def released(
    document: dict[str, Any] | None, before: Collection[str], frozen: Collection[str]
) -> dict[str, int]:
    """By owning module: how many more elements are trained than at the first step, or fewer."""
    found: dict[str, int] = {}
    for parameter in (document or {}).get("parameters", []):
        owner, count = str(parameter["module"]), int(parameter["elements"])
        paths = set(_ancestry(owner))
        was = bool(parameter.get("trainable"))
        now = (was or not paths.isdisjoint(before)) and paths.isdisjoint(frozen)
        if now != was:
            found[owner] = found.get(owner, 0) + (count if now else -count)
    return found


def rows(
    document: dict[str, Any] | None, released: Mapping[str, int] | None = None
) -> list[ModuleRow]:
    """Rows in call order, each module before those inside it; modules that never ran come last.

    Empty when the run's ``modules`` document was not recorded yet.

    Args:
        released: as of :func:`released`, since the document was written.
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
    return [_row(order, module, released or {}) for order, module in enumerate(modules)]


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


def reasons(table: Sequence[ModuleRow], *, named: int = 4) -> list[tuple[str, str]]:
    """Each note that a column cuts, and the modules it is about: a few, then how many more."""
    found: dict[str, list[str]] = {}
    for row in table:
        if len(row.note) > _FITS:
            found.setdefault(row.note, []).append(row.path)
    return [
        (note, ", ".join(paths[:named]) + f" and {len(paths) - named} more" * (len(paths) > named))
        for note, paths in found.items()
    ]


def shape(sizes: Sequence[Any]) -> str:
    """``64×1×8×8``; a scalar reads ``scalar``."""
    return "×".join(str(size) for size in sizes) if sizes else "scalar"


def bytes_text(count: float) -> str:
    """``12.3 MiB``, in powers of 1024 as the charts have it; empty for nothing."""
    if not count:
        return ""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.0f} {units[0]}" if count >= 1000 else f"{count:.3g} {units[0]}"


def _row(order: int, module: dict[str, Any], released: Mapping[str, int]) -> ModuleRow:
    parameters, trainable = int(module.get("parameters", 0)), int(module.get("trainable", 0))
    path = str(module.get("path", ""))
    trainable += sum(more for owner, more in released.items() if path in _ancestry(owner))
    kind = str(module.get("type", ""))
    return ModuleRow(
        order=order,
        path=path or ROOT,
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
