"""Where the Python code of an operation is: module path, file, line."""

from __future__ import annotations

import linecache
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn

import inspector

_PACKAGE = str(Path(inspector.__file__).parent) + os.sep
_BUNDLE = _PACKAGE + "bundle" + os.sep
_TORCH = str(Path(torch.__file__).parent) + os.sep
_LIBRARIES = tuple(
    str(sysconfig.get_path(name)) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


@dataclass(frozen=True, slots=True)
class Place:
    """A source line and the innermost module that was running; "" and 0 when unknown."""

    module: str | None = None
    file: str = ""
    line: int = 0

    @property
    def code(self) -> str:
        """The line's text."""
        return linecache.getline(self.file, self.line).strip() if self.file else ""


def place_of(frame: FrameType | None, modules: dict[int, str], stop: str) -> Place:
    """The user's own innermost line, else a library's, else PyTorch's; up to the file ``stop``.

    Args:
        modules: path of each module by ``id``.
    """
    module: str | None = None
    best, rank = ("", 0), 9
    while frame is not None and frame.f_code.co_filename != stop:
        if module is None:
            running = frame.f_locals.get("self")
            if isinstance(running, nn.Module):
                module = modules.get(id(running))
        found = _rank(frame.f_code.co_filename)
        if found < rank:
            best, rank = (frame.f_code.co_filename, frame.f_lineno), found
        frame = frame.f_back
    return Place(module, *best)


def is_users(file: str) -> bool:
    """Whether a file is nobody's library."""
    return bool(file) and _rank(file) == 0


def _rank(file: str) -> int:
    """0 for the user's own files, 1 for libraries, 2 for PyTorch's modules, 9 for the rest."""
    if file.startswith(_BUNDLE):
        return 0
    if file.startswith((_PACKAGE, "<frozen", "<string")):
        return 9
    if file.startswith(_TORCH):
        return 2 if file.startswith(_TORCH + "nn" + os.sep) else 9
    return 1 if file.startswith(_LIBRARIES) else 0
