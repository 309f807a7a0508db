"""The configuration of a run as JSON for ``torch-inspector train``."""

from __future__ import annotations

import json
from typing import Any

from inspector.errors import ExportError
from inspector.exports.by_hand import by_hand
from inspector.exports.formats import Made, Request


def configuration(request: Request) -> Made:
    """Writes what the run was started with, and what was changed by hand at which step.

    Raises:
        ExportError: the run was not started by the built-in trainer.
    """
    content, done = dict(built_in(request)), by_hand(request.run)
    content["by_hand"] = [
        {"step": step, "control": control, "value": value}
        for step, control, value in done.changes
        if step > 0
    ]
    content["controls"] = dict(content["controls"]) | {
        control: value for step, control, value in done.changes if step == 0
    }
    if done.last:
        content["by_hand"].append({"step": done.last, "control": "stop", "value": True})
    request.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    notes = ["Start the same run with: torch-inspector train FILE."]
    if done.missing:
        notes.append("It does not repeat: " + " ".join(done.missing))
    if any(name.startswith("file:") for name in (str(content["model"]), str(content["data"]))):
        notes.append("It refers to a Python file of yours by its path; keep the file.")
    return Made(notes=tuple(notes))


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
