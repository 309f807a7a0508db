"""The weights that a run has kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.errors import ExportError
from inspector.exports.formats import Request

if TYPE_CHECKING:
    from torch import Tensor


def saved(run_path: Path) -> dict[str, Path]:
    """Checkpoints of a run by name: ``last``, ``best``, ``step-000500``, …."""
    blobs = run_path / "blobs"
    found = {path.stem: path for path in sorted((blobs / "checkpoints").glob("*.pt"))}
    if (blobs / "last.pt").is_file():
        found.setdefault("last", blobs / "last.pt")
    return found


def weights(request: Request) -> tuple[dict[str, Tensor], int | None]:
    """The state_dict of the checkpoint that was asked for, on the CPU, and its step.

    Raises:
        ExportError: the run has no such checkpoint, or it cannot be read.
    """
    content = _read(_find(request), request)
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
            f"Run {run.name} has not saved a checkpoint yet; it does so at its end, and every "
            "checkpoint_every steps where that is set. Its telemetry can be exported now."
        )
    raise ExportError(
        f"Run {run.name} ended ({run.status}) without a checkpoint, so there are no weights to "
        "export; its telemetry and report can be exported."
    )


def _read(path: Path, request: Request) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises nearly anything
        raise ExportError(
            f"Checkpoint {request.checkpoint} of run {request.run.name} cannot be read: "
            f"{str(error).splitlines()[0][:200]}."
        ) from error
    return content if isinstance(content, dict) else {}
