"""Starting the app: a free port, a token, the link as the last line, the browser."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import sys
import webbrowser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import streamlit.config

from inspector.errors import InspectorError
from inspector.server.settings import Settings, configure, current

PORT = 8501
TRIES = 100
_WILDCARDS = ("0.0.0.0", "::", "")


def serve(
    runs_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    token: str | None = None,
    allowed_hosts: tuple[str, ...] = (),
) -> None:
    """Serves the app until it is stopped; blocks.

    Args:
        runs_dir: folder of runs; need not exist yet.
        host: address to listen on. Anything but loopback lets other machines try, so say it
            deliberately.
        port: None takes the first free one from 8501 on.
        open_browser: opens the link once the server answers.
        token: None makes one.
        allowed_hosts: host names, besides loopback, under which the app is reached.

    Raises:
        InspectorError: the port is taken, or none is free; ``host`` is no address of this machine;
            ``runs_dir`` is a file.
    """
    if runs_dir.exists() and not runs_dir.is_dir():
        raise InspectorError(f"Expected a folder of runs, but {runs_dir} is a file; name another.")
    port = free_port(host, port)
    beyond = host not in ("127.0.0.1", "::1", "localhost")
    names = {socket.gethostname().lower(), *map(str.lower, allowed_hosts)} if beyond else set()
    configure(
        Settings(
            token=token or secrets.token_urlsafe(32),
            runs_dir=runs_dir.resolve(),
            hosts=frozenset(names | set(map(str.lower, allowed_hosts))),
            any_address=beyond,
            open_browser=open_browser,
        )
    )
    from streamlit.web import cli

    flags = [f"--server.address={host}", f"--server.port={port}"]
    try:
        cli.main(["run", str(app_file()), *flags], standalone_mode=False)
    except click.exceptions.Abort:  # Ctrl-C, said as click says it
        raise KeyboardInterrupt from None


def free_port(host: str, wanted: int | None) -> int:
    """The wanted port, or the first free one.

    Raises:
        InspectorError: it is taken, or none is free, or ``host`` is no address of this machine.
    """
    if wanted is not None and not 0 <= wanted < 65536:
        raise InspectorError(f"port must be a number from 1 to 65535, but got {wanted}.")
    candidates = [wanted] if wanted is not None else range(PORT, PORT + TRIES)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in candidates:
        with socket.socket(family) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                    raise InspectorError(
                        f"Expected an address or name of this machine as host, but got {host!r}; "
                        "127.0.0.1 is for this machine alone, 0.0.0.0 for all that reach it."
                    ) from error
                if wanted is not None and error.errno == errno.EACCES:
                    raise InspectorError(
                        f"Port {wanted} is for the system's own services; choose one from 1024 on."
                    ) from error
                continue
            return int(probe.getsockname()[1])
    raise InspectorError(
        f"Expected port {wanted} on {host} to be free, but it is in use; choose another --port."
        if wanted is not None
        else f"Expected a free port between {PORT} and {PORT + TRIES} on {host}, but found none."
    )


def app_file() -> Path:
    """``app.py``: in a checkout at its root, in a wheel inside the package.

    Raises:
        InspectorError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "bundle" / "app.py", package.parent / "app.py"):
        if candidate.is_file():
            return candidate
    raise InspectorError(f"Expected app.py beside {package}, but it is not there; reinstall.")


def link() -> str:
    """The address of the running server, with the token last."""
    host = streamlit.config.get_option("server.address") or "127.0.0.1"
    if host in _WILDCARDS:
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if streamlit.config.get_option("server.sslCertFile") else "http"
    port = streamlit.config.get_option("server.port")
    return f"{scheme}://{host}:{port}/?token={current().token}"


@asynccontextmanager
async def lifespan(_: Any) -> AsyncGenerator[dict[str, Any]]:
    """Prints the link when the app is up, and stops the trainer when it goes down."""
    # uvicorn's own lines would follow the link, which must be the last.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    announced = asyncio.get_running_loop().call_later(0.2, announce)
    try:
        yield {}
    finally:
        announced.cancel()
        await asyncio.to_thread(_stop_trainer)


def announce() -> None:
    """Prints the link, and opens the browser where that was asked for."""
    address = link()
    print(f"\n  torch-inspector shows the runs in {current().runs_dir.resolve()}")  # noqa: T201
    print(f"  Open this link (it holds the key to the app):\n\n  {address}\n", flush=True)  # noqa: T201
    if current().open_browser:
        asyncio.get_running_loop().run_in_executor(None, webbrowser.open, address)


def _stop_trainer() -> None:
    """Ends a run that trains in this process in good order, so that nothing of it is lost."""
    runner = sys.modules.get("inspector.training.runner")
    if runner is not None:
        runner.stop()
        runner.join(5.0)
