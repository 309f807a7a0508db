"""Thresholds that hold for every run of a folder: ``diagnosis.json`` beside the runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from inspector.errors import ConfigError

FILE = "diagnosis.json"


def read_limits(folder: Path) -> dict[str, float]:
    """The changed thresholds, keyed ``code.name``; empty when there is no file.

    Raises:
        ConfigError: the file is not an object of finite numbers.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected JSON in {path}, but it cannot be read: {error}.") from error
    if not isinstance(content, dict) or not all(map(_is_limit, content.values())):
        raise ConfigError(f"Expected names of thresholds with a number each in {path}.")
    return {str(name): float(value) for name, value in content.items()}


def write_limits(folder: Path, changed: Mapping[str, float]) -> None:
    """Replaces the file in one move; without changes there is none."""
    path = folder / FILE
    if not changed:
        path.unlink(missing_ok=True)
        return
    beside = path.with_suffix(f".{os.getpid()}.part")
    beside.write_text(json.dumps(dict(sorted(changed.items())), indent=2) + "\n", "utf-8")
    beside.replace(path)


def _is_limit(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
