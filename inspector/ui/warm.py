"""Imports torch in the background while the first page is read, so that Start answers at once."""

from __future__ import annotations

import importlib
import threading

_started = threading.Event()


def start() -> None:
    """Begins the imports once per process; returns immediately."""
    if not _started.is_set():
        _started.set()
        threading.Thread(target=_imports, name="inspector-warm-up", daemon=True).start()


def _imports() -> None:
    importlib.import_module("torch")
    importlib.import_module("inspector.training.runner")
