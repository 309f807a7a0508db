"""Imports what a run needs while the first page is read, so that Start answers at once."""

from __future__ import annotations

import importlib
import threading

# Each is otherwise imported in the middle of the first run: together some seconds.
_HEAVY = (
    "torch",
    "inspector.training.runner",
    "inspector.watching",
    "sklearn.datasets",
    "torch._dynamo",
    "inspector.training.metrics",  # torchmetrics, at the first validation
)
_started = threading.Event()


def start() -> None:
    """Begins the imports once per process; returns immediately."""
    if not _started.is_set():
        _started.set()
        threading.Thread(target=_imports, name="inspector-warm-up", daemon=True).start()


def _imports() -> None:
    for name in _HEAVY:
        importlib.import_module(name)
