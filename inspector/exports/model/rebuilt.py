"""The model of a built-in run, built again from its configuration and a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from inspector.config import RunConfig
from inspector.errors import ExportError, InspectorError
from inspector.exports.configuration import built_in
from inspector.exports.formats import Request
from inspector.exports.model.checkpoint import weights
from inspector.exports.model.inputs import BATCH, Inputs, inputs_of
from inspector.training.dry_run import dry_run
from inspector.training.own.reference import describe
from inspector.training.task import build_task


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A model in eval mode on the CPU, and what it is called with for a batch of its run's data.

    Attributes:
        step: optimizer steps after which the checkpoint was saved, if it says so.
        notes: sentences about what is not as it was during training.
    """

    model: nn.Module
    inputs: Inputs
    step: int | None
    notes: tuple[str, ...] = ()


def rebuild(request: Request) -> Rebuilt:
    """Builds the model, loads the checkpoint's weights into it, and fetches a batch.

    Raises:
        ExportError: the run has no configuration or checkpoint, or they do not fit each other.
        InspectorError: the model or the data cannot be built any more; the message says why.
    """
    config = _config(request)
    state, step = weights(request)
    try:
        task = build_task(config)
        batch = dry_run(task)
    except InspectorError:
        raise
    except Exception as error:  # out of the user's own code
        raise ExportError(
            f"The model of run {request.run.name} can no longer be built: {describe(error)}; "
            "export state_dict or safetensors instead."
        ) from error
    try:
        task.model.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(
            f"The weights of run {request.run.name} no longer fit its model "
            f"({_first(error)}); has its source changed since?"
        ) from error
    task.model.eval()
    inputs = inputs_of(task, batch, request.run.name)
    if inputs.length(BATCH) == 1:
        raise ExportError(
            f"Expected two samples or more of {config.data} to check the export with, but got one."
        )
    return Rebuilt(task.model, inputs, step, _notes(request.run.config, state))


def _config(request: Request) -> RunConfig:
    """The run's configuration, on the CPU, with the source that the run has kept."""
    content = dict(built_in(request))
    for part in ("model", "data"):
        content[part] = kept_reference(str(content[part]), request.run.path)
    known = {field.name for field in dataclasses.fields(RunConfig)}
    config = RunConfig.from_dict({key: content[key] for key in known & set(content)})
    return dataclasses.replace(
        config, device="cpu", weights="", resume="", compile=False, workers=0, augment=[],
        overfit_batches=0, pin_memory=False, deterministic=False,
    )  # fmt: skip


def kept_reference(name: str, run_path: Path) -> str:
    """A reference to a file of the user's own, led to the copy of it in the run.

    While the files are as they were, they are left where they are, since they may read from
    places beside them.
    """
    kind, _, rest = name.partition(":")
    place, _, thing = rest.rpartition(":")
    kept = run_path.resolve() / "blobs" / "source"
    copy = kept / Path(place).name
    if kind != "file" or not place or not copy.is_file() or _unchanged(kept):
        return name
    return f"file:{copy}:{thing}"


def _unchanged(kept: Path) -> bool:
    """Whether the files that a run has kept copies of are where they were, and the same."""
    origins = kept.with_suffix(".json")
    if not origins.is_file():
        return False
    paths = json.loads(origins.read_text("utf-8"))
    return bool(paths) and all(
        Path(path).is_file() and Path(path).read_bytes() == (kept / name).read_bytes()
        for name, path in paths.items()
        if (kept / name).is_file()
    )


def _notes(config: dict[str, Any], state: dict[str, Tensor]) -> tuple[str, ...]:
    notes = []
    precision = config.get("precision", "float32")
    if precision != "float32":
        notes.append(f"Training used {precision} by autocast; the export computes in float32.")
    numbers = [value for value in state.values() if value.is_floating_point()]
    if not all(bool(value.isfinite().all()) for value in numbers):
        notes.append("The checkpoint holds NaN or infinite weights: the export is as useless.")
    return tuple(notes)


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 else lines[0])[:200].rstrip(".") if lines else ""
