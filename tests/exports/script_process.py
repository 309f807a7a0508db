"""Runs an exported script in a process forked from one that has imported torch.

A fresh interpreter would import for three to six seconds, once for each of some twenty scripts. The
forked one has run nothing else, and cannot import this project.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload(
    ["torch", "torch._dynamo", "pandas", "sklearn.datasets", "sklearn.model_selection",
     "torchvision.transforms.v2"]
)  # fmt: skip


def run_script(path: Path, seconds: float) -> tuple[int | None, str]:
    """Exit status of the script, None if it took too long, and what it said."""
    log = path.with_suffix(".log")
    process = _FRESH.Process(target=_run, args=(str(path), str(log)))
    process.start()
    process.join(seconds)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    return code, log.read_text("utf-8")


def _run(path: str, log: str) -> None:
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    folder, script = os.path.split(path)
    os.chdir(folder)
    for ours in ("inspector", "sample_models"):
        assert ours not in sys.modules
        sys.modules[ours] = None  # type: ignore[assignment]
    sys.path.insert(0, folder)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
