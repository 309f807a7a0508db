"""``torch.compile`` for a run: on where it works, and what it does to what can be seen."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from inspector.errors import ConfigError
from inspector.training.downloads import Progress
from inspector.training.task import Task

_DEFAULT = "inductor"
_REMEDIES = {
    "InvalidCxxCompiler": "Install a C++ compiler (Debian, Ubuntu: apt install g++; macOS: "
    "xcode-select --install; another one is named by the environment variable CXX).",
    "TritonMissing": "Install Triton (pip install triton).",
    "Python.h": "Install Python's headers (Debian, Ubuntu: apt install python3-dev).",
}
"""What helps, by the kind of the error or a word in it."""


def compiled(task: Task, progress: Progress | None = None) -> Task:
    """The task with its model compiled in place, and with a note about it.

    Where nothing can be compiled (no C++ compiler, no Triton), the model stays as it is and the
    note says so, and what to install.

    Args:
        progress: told that a small model is compiled first, which may take a while.

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
    if progress is not None:
        progress(f"Trying torch.compile with {backend} …", 0.0)
    trouble = _try(backend, task.device)
    if trouble:
        note = trouble
    else:
        task.model.compile(backend=backend)
        inside = sum(1 for _ in task.model.modules()) - 1
        note = (
            f"The model runs compiled by {backend}: the {inside} modules inside it are not seen, "
            "their parameters and gradients are. The first step, the first validation and the "
            "first batch of another size compile it: these take long."
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
    """Why a model as small as can be cannot be compiled, and what helps; empty if it can."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        small = nn.Linear(2, 2).to(device)
        small.compile(backend=backend)
        try:
            small(torch.ones(1, 2, device=device)).sum().backward()
        except Exception as error:  # whatever is missing, each backend says it in its own way
            return _trouble(getattr(error, "inner_exception", error))
        finally:
            with contextlib.suppress(Exception):
                torch._dynamo.reset()
    return ""


def _trouble(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    # A compiler's own complaint says more than that there was one.
    told = next((line for line in lines if "error:" in line), lines[0]).strip().rstrip(".")
    said = f"torch.compile does not work here ({told[:200]}): the model is trained uncompiled."
    kinds = [kind.__name__ for kind in type(cause).__mro__]
    remedy = next((text for key, text in _REMEDIES.items() if key in kinds or key in told), "")
    return f"{said} {remedy}".rstrip()
