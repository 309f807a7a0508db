"""Which frames of a traceback are the user's own."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

import inspector
from inspector.events import Frame

_PACKAGE = str(Path(inspector.__file__).parent)
_BUNDLE = str(Path(_PACKAGE) / "bundle")
_TORCH = str(Path(torch.__file__).parent)
_LIBRARIES = tuple(
    str(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def user_frames(frames: Iterable[traceback.FrameSummary]) -> tuple[Frame, ...]:
    """The frames in nobody's library, outermost first.

    Where there are none, those outside PyTorch and this package (as in torchvision's models).
    """
    outside = [frame for frame in frames if not _within(frame.filename, (_PACKAGE, _TORCH))]
    own = [frame for frame in outside if not _within(frame.filename, _LIBRARIES)]
    return tuple(
        Frame(frame.filename, frame.lineno or 0, frame.name, frame.line or "")
        for frame in own or outside
    )


def _within(file: str, folders: Iterable[str]) -> bool:
    if file.startswith(_BUNDLE):
        return False
    return file.startswith("<") or any(file.startswith(f"{folder}/") for folder in folders)
