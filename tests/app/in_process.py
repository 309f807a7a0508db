"""The app in this process, drawn by Streamlit's AppTest: no server and no browser."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.server.settings import RUNS_DIR_VARIABLE, Settings, configure

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60
_READ = ("markdown", "caption", "subheader", "info", "error", "warning", "success", "code")


def serve(runs_dir: Path) -> None:
    """These runs are shown from now on, until :func:`forget` at the end of the test."""
    configure(Settings(token="t" * 32, runs_dir=runs_dir))


def forget() -> None:
    """As in a process that has shown nothing."""
    sys.modules.pop("_torch_inspector_server", None)
    os.environ.pop(RUNS_DIR_VARIABLE, None)


def open_app(runs_dir: Path, **link: str) -> AppTest:
    """The whole app on a folder of runs, before its first run; ``link``: what the address says."""
    serve(runs_dir)
    app = AppTest.from_file(str(ROOT / "inspector" / "ui" / "script.py"), default_timeout=_SECONDS)
    for name, value in link.items():
        app.query_params[name] = value
    return app


def turn_to(app: AppTest, page: str) -> AppTest:
    """Runs the app, and then follows its menu to a page."""
    app.run()
    app.switch_page(str(ROOT / "pages" / f"{page}.py")).run()
    assert not app.exception, app.exception
    return app


def open_page(runs_dir: Path, page: str | Callable[[], None], **state: str) -> AppTest:
    """One page without the app around it, before its first run.

    Args:
        page: a file of ``pages/``, or a function that draws.
        state: what the session knows.
    """
    serve(runs_dir)
    if callable(page):
        app = AppTest.from_function(page, default_timeout=_SECONDS)
    else:
        app = AppTest.from_file(str(ROOT / "pages" / f"{page}.py"), default_timeout=_SECONDS)
    for name, value in state.items():
        app.session_state[name] = value
    return app


def draft(app: AppTest) -> RunConfig:
    """The configuration that the Start page has filled in so far."""
    assert not app.exception, app.exception
    made = app.session_state["draft"]
    assert isinstance(made, RunConfig)
    return made


def read(app: AppTest, *kinds: str) -> str:
    """What a person reads, a line for each element, without Markdown's escapes.

    Args:
        kinds: of elements, as AppTest calls them; without any, all that are text.
    """
    found = [element for kind in kinds or _READ for element in getattr(app, kind)]
    return "\n".join(str(element.value) for element in found).replace("\\", "")


def picture(app: AppTest) -> str:
    """The SVG of the only picture."""
    (drawn,) = app.get("image")
    return base64.b64decode(drawn.proto.imgs[0].url.partition(",")[2]).decode()
