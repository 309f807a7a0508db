"""Runs an exported script in a process forked from one that has imported torch.

A fresh interpreter would import for three to six seconds, once for each of some twenty scripts. The
forked one has run nothing else, and cannot import this project.
"""

from __future__ import annotations

import atexit
import functools
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_SERVER = """
import os, runpy, sys, traceback
import torch, torch._dynamo, pandas, sklearn.datasets, sklearn.model_selection
import torchvision.transforms.v2

def run(path):
    said = os.open(path[:-3] + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    folder, script = os.path.split(path)
    os.chdir(folder)
    for ours in ("inspector", "sample_models"):
        assert ours not in sys.modules
        sys.modules[ours] = None
    sys.path.insert(0, folder)
    sys.argv = [script]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        try:
            code = run(line.rstrip("\\n"))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    atexit.register(server.kill)
    return server


def run_script(path: Path, seconds: float) -> tuple[int | None, str]:
    """Exit status of the script, None if it took too long, and what it said."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(f"{path}\n".encode())
    child = int(server.stdout.readline())
    in_time, _, _ = select.select([server.stdout], [], [], seconds)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    code = int(server.stdout.readline())
    return code if in_time else None, path.with_suffix(".log").read_text("utf-8")
