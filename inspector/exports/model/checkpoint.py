"""The weights that a run has kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import ConfigError, ExportError
from inspector.exports.formats import Request

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
