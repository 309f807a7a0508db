"""A live debugger for PyTorch training: ``inspector.watch`` writes runs, ``open_run`` reads them.

Importing this package imports neither torch nor numpy; each name loads its module when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.store.reader import Run, open_run
    from inspector.watching import Watch, watch

_HOME = {
    "Run": "inspector.store.reader",
    "Watch": "inspector.watching",
    "open_run": "inspector.store.reader",
    "watch": "inspector.watching",
}

__all__ = ["Run", "Watch", "open_run", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
