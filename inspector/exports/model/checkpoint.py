"""The weights that a run has kept."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import ConfigError, ExportError
from inspector.exports.formats import Request
from inspector.store.reader import Run

if TYPE_CHECKING:
    from torch import Tensor


FOLDER = Path("blobs") / "checkpoints"


def saved(run_path: Path) -> dict[str, Path]:
    """Checkpoints of a run by name: ``last``, ``best``, ``step-000500``, …."""
    return {path.stem: path for path in sorted((run_path / FOLDER).glob("*.pt"))}


def weights(request: Request) -> tuple[dict[str, Tensor], int | None]:
    """The state_dict of the checkpoint that was asked for, on the CPU, and its step.

    Raises:
        ExportError: the run has no such checkpoint, or it cannot be read.
    """
    from inspector.training.checkpoints import read

    try:
        content = read(_find(request))
    except ConfigError as error:
        raise ExportError(str(error)) from error
    state = content.get("model")
    if not isinstance(state, dict) or not state:
        raise ExportError(
            f"Expected the weights of a model in checkpoint {request.checkpoint} of run "
            f"{request.run.name}, but it holds {', '.join(map(str, content)) or 'nothing'}."
        )
    step = content.get("step")
    return state, step if isinstance(step, int) else None


def origin_of(run: Run) -> Path | None:
    """The checkpoint that a run went on from; None if it began by itself.

    Raises:
        ExportError: it is gone, or was replaced since by a later one.
    """
    told = run.meta.get("lineage")
    if not isinstance(told, dict):
        return None
    from inspector.training.checkpoints import ORIGIN, step_of

    runs_dir, parent = run.path.resolve().parent, str(told.get("parent", ""))
    kept, named = run.path / ORIGIN, runs_dir / str(told.get("checkpoint", ""))
    places = [named, kept, Path(str(run.config.get("resume", "")))]
    if parent:
        places += sorted((runs_dir / parent / FOLDER).glob("*.pt"))
    for place in places:
        replaced = kept.is_file() and place != kept and not _is_one(place, kept)
        if place.is_file() and not replaced and step_of(place) == told.get("step"):
            return place
    raise ExportError(
        f"Run {run.name} went on from {f'run {parent}' if parent else named.name} at step "
        f"{told.get('step')}, but that checkpoint is gone or was replaced since; export a run that "
        "began by itself, or this one's state_dict."
    )


def _is_one(place: Path, other: Path) -> bool:
    return place.is_file() and (place.samefile(other) or filecmp.cmp(place, other, shallow=False))


def _find(request: Request) -> Path:
    run = request.run
    found = saved(run.path)
    if request.checkpoint in found:
        return found[request.checkpoint]
    if found:
        raise ExportError(
            f"Run {run.name} has no checkpoint named {request.checkpoint!r}; "
            f"choose from {', '.join(found)}."
        )
    if not run.config:
        raise ExportError(
            f"Run {run.name} was recorded by a script of yours, which keeps its weights itself "
            "(torch.save(model.state_dict(), …)); what can be exported of the run is its "
            "telemetry (parquet, csv, tensorboard, wandb) and html."
        )
    if run.status in ("running", "paused"):
        raise ExportError(
            f"Run {run.name} has not saved a checkpoint yet; it does so at its end, when told to "
            "by hand, and every checkpoint_every steps. Its telemetry can be exported now."
        )
    raise ExportError(
        f"Run {run.name} ended ({run.status}) without a checkpoint, so there are no weights to "
        "export; its telemetry and report can be exported."
    )
