"""Weights alone: a state_dict for ``torch.load``, or safetensors."""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.errors import ExportError
from inspector.exports.formats import Made, Request
from inspector.exports.model.checkpoint import weights


def state_dict(request: Request) -> Made:
    """Writes a plain ``state_dict``: ``model.load_state_dict(torch.load(FILE))``."""
    state, step = weights(request)
    torch.save(dict(state), request.out)
    return _made(state, step)


def safetensors(request: Request) -> Made:
    """Writes safetensors; a checkpoint holds shared parameters once under each of their names."""
    from safetensors.torch import save_file

    state, step = weights(request)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ExportError(
                f"Expected tensors only for safetensors, but {name} of run {request.run.name} is "
                f"a {type(value).__name__}; export state_dict instead."
            )
    tensors = {name: value.contiguous() for name, value in state.items()}
    try:
        save_file(tensors, request.out, metadata=_metadata(request, step))
    except (ValueError, KeyError) as error:
        raise ExportError(
            f"safetensors cannot hold these weights ({error}); export state_dict instead."
        ) from error
    return _made(state, step)


def _metadata(request: Request, step: int | None) -> dict[str, str]:
    return {
        "format": "pt",
        "run": request.run.name,
        "checkpoint": request.checkpoint,
        "step": "" if step is None else str(step),
    }


def _made(state: dict[str, Tensor], step: int | None) -> Made:
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    count = sum(value.numel() for value in tensors)
    when = "" if step is None else f" after {step} steps"
    return Made(
        notes=(f"{len(tensors)} tensors, {count:,} numbers{when}.",),
        facts={"tensors": len(tensors), "numbers": count, "step": step},
    )
