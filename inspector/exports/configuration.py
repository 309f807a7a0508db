"""The configuration of a run as JSON for ``torch-inspector train``."""

from __future__ import annotations

import json
from typing import Any

from inspector.errors import ExportError
from inspector.exports.by_hand import ACTS, InGroup, by_hand
from inspector.exports.formats import Made, Request
from inspector.exports.model.checkpoint import origin_of


def configuration(request: Request) -> Made:
    """Writes what the run was started with, and what was changed by hand at which step.

    Raises:
        ExportError: the run was not started by the built-in trainer, or the checkpoint that it
            went on from is gone.
    """
    content, done = dict(built_in(request)), by_hand(request.run)
    origin = origin_of(request.run)
    changes = [change for change in done.changes if change[1] not in ACTS]
    missing = [f"Step {step}: {act} {value['module'] or 'the model'}."
               for step, act, value in done.changes if act in ACTS]  # fmt: skip
    first = request.run.meta["lineage"]["step"] if origin else 0
    passed = [entry for entry in content.get("by_hand", []) if entry["step"] <= first]
    content["by_hand"] = passed + [
        _entry(step, control, value) for step, control, value in changes if step > first
    ]
    content["controls"] = dict(content["controls"]) | {
        control: value
        for step, control, value in changes
        if step == first and not isinstance(value, InGroup)
    }
    missing += [
        f"Step {step}: {control} of group {value.group}."
        for step, control, value in changes
        if step == first and isinstance(value, InGroup)
    ]
    if done.last:
        content["by_hand"].append({"step": done.last, "control": "stop", "value": True})
    notes = ["Start the same run with: torch-inspector train FILE."]
    if origin is not None:
        content["resume"] = str(origin.resolve())
        notes.append(f"It goes on from the checkpoint {origin.resolve()}; keep that file.")
    if missing := [*missing, *done.missing]:
        notes.append("It does not repeat: " + " ".join(missing))
    if any(name.startswith("file:") for name in (str(content["model"]), str(content["data"]))):
        notes.append("It refers to a Python file of yours by its path; keep the file.")
    request.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return Made(notes=tuple(notes))


def _entry(step: int, control: str, value: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": step, "control": control, "value": value}
    if isinstance(value, InGroup):
        entry |= {"value": value.value, "target": value.target}
    return entry


def built_in(request: Request) -> dict[str, Any]:
    """The configuration of a built-in run.

    Raises:
        ExportError: it is a watched or an imported run, which has none.
    """
    run = request.run
    if run.config:
        return run.config
    origin = (
        "was imported"
        if run.meta.get("kind") == "imported"
        else "was recorded by a script of yours"
    )
    raise ExportError(
        f"Run {run.name} {origin}, so its model and settings are not in the run directory; "
        "what can be exported of it is its telemetry (parquet, csv, tensorboard, wandb) and html."
    )
