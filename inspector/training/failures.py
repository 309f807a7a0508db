"""What went wrong, in the user's terms: phase, module and the frames of the user's own code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from inspector.events import Frame, NonFinite, RunFailed
from inspector.frames import user_frames
from inspector.training.reproducibility import explain

_PHASES = (
    ("step", ("torch/optim/",)),
    (
        "data",
        ("torch/utils/data/", "inspector/training/data.py", "inspector/training/own/datasets.py"),
    ),
    ("build", ("inspector/training/task.py",)),
)
_BORN = re.compile(r"Function '(\w+)' returned nan values")
_FORWARD_LINE = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)$')


def failure(error: BaseException, model: nn.Module | None = None) -> RunFailed:
    """The event for an exception that ended a run.

    ``module`` is the innermost module of ``model`` whose method was running.
    """
    summary = traceback.extract_tb(error.__traceback__)
    return RunFailed(
        error=type(error).__name__,
        message=_message(error),
        phase=_phase(summary),
        module=_module_path(error.__traceback__, model) if model is not None else None,
        frames=user_frames(summary),
        traceback="".join(traceback.format_exception(error)),
    )


def _message(error: BaseException) -> str:
    if (explained := explain(error)) is not None:
        return explained
    text = str(error).strip() or "(no message)"
    if isinstance(error, torch.OutOfMemoryError):
        return f"{text} Choose a smaller batch_size."
    return text


def _phase(frames: Iterable[traceback.FrameSummary]) -> str:
    calls = [(Path(frame.filename).as_posix(), frame.name) for frame in frames]
    if any("torch/" in file and name == "_engine_run_backward" for file, name in calls):
        return "backward"
    for phase, places in _PHASES:
        if any(place in file for file, _ in calls for place in places):
            return phase
    return "forward"


def born_in_backward(error: RuntimeError, warned: Iterable[str], policy: str) -> NonFinite | None:
    """The event for an error of anomaly detection; None for any other error.

    Args:
        warned: texts of the warnings of the backward pass; one holds the traceback of the
            forward call that made the failing function.
        policy: what follows: paused or skipped.
    """
    found = _BORN.search(str(error))
    if found is None:
        return None
    frames = [frame for text in warned for frame in _forward_frames(text)]
    own = user_frames(frames)
    last = own[-1] if own else Frame("", 0, "")
    return NonFinite(
        where="backward",
        op=found[1],
        file=last.file,
        line=last.line,
        code=last.code,
        policy=policy,
    )


def _forward_frames(text: str) -> Iterator[traceback.FrameSummary]:
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        match = _FORWARD_LINE.match(line)
        if match:
            yield traceback.FrameSummary(
                match["file"], int(match["line"]), match["function"], line=following.strip()
            )


def _module_path(trace: TracebackType | None, model: nn.Module) -> str | None:
    paths = {id(module): path for path, module in model.named_modules()}
    found = None
    while trace is not None:
        running = trace.tb_frame.f_locals.get("self")
        found = paths.get(id(running), found)
        trace = trace.tb_next
    return found
