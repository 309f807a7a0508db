"""``torch.compile`` for a run: on where it works, and what it does to what can be seen."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from inspector.errors import ConfigError
from inspector.training.task import Task

_DEFAULT = "inductor"


def compiled(task: Task) -> Task:
    """The task with its model compiled in place, and with a note about it.

    Where nothing can be compiled (no C++ compiler, no Triton), the model stays as it is and the
    note says so.

    Raises:
        ConfigError: there is no backend of that name.
    """
    wanted = task.config.compile
    if not wanted:
        return task
    backend = wanted if isinstance(wanted, str) else _DEFAULT
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        raise ConfigError(
            f"torch.compile has no backend named {backend!r}; choose one of "
            f"{', '.join(torch.compiler.list_backends(exclude_tags=()))}."
        )
    trouble = _try(backend, task.device)
    if trouble:
        note = f"torch.compile does not work here ({trouble}): the model is trained uncompiled."
    else:
        task.model.compile(backend=backend)
        inside = sum(1 for _ in task.model.modules()) - 1
        note = (
            f"The model runs compiled by {backend}: the {inside} modules inside it are not seen, "
            "their parameters and gradients are."
        )
    return dataclasses.replace(task, notes=(*task.notes, note))


@contextlib.contextmanager
def forgiving(wanted: bool | str) -> Iterator[None]:
    """What the compiler cannot take runs uncompiled, instead of ending the run."""
    if not wanted:
        yield
        return
    with torch._dynamo.config.patch(suppress_errors=True):
        yield


def _try(backend: str, device: torch.device) -> str:
    """Why a model as small as can be cannot be compiled; empty if it can."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        small = nn.Linear(2, 2).to(device)
        small.compile(backend=backend)
        try:
            small(torch.ones(1, 2, device=device)).sum().backward()
        except Exception as error:  # whatever is missing, each backend says it in its own way
            cause = getattr(error, "inner_exception", error)
            text = str(cause).strip() or type(cause).__name__
            return text.splitlines()[0].rstrip(".")[:200]
        finally:
            with contextlib.suppress(Exception):
                torch._dynamo.reset()
    return ""
