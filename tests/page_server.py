"""A server that shows one page, under the app's own security policy."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

APP = """
import streamlit as st
from starlette.middleware import Middleware
from inspector.server import assets, policy

class Headers:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        async def with_policy(message):
            if message["type"] == "http.response.start":
                message = message | {{"headers": [*message["headers"], *policy.HEADERS]}}
            await send(message)
        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)

app = st.App({script!r}, routes=assets.routes(), middleware=[Middleware(Headers)])
"""


@contextlib.contextmanager
def served(folder: Path, script: str) -> Iterator[str]:
    """Address of a server that runs this script for each visitor."""
    (folder / "script.py").write_text(script)
    (folder / "app.py").write_text(APP.format(script=str(folder / "script.py")))
    port = free_port()
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}",
               "--server.address=127.0.0.1", "--server.headless=true",
               "--server.fileWatcherType=none", "--browser.gatherUsageStats=false"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def free_port() -> int:
    """A port that is free, far from those that other servers try one after the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise TimeoutError(url)
