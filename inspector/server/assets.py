"""The bundled JavaScript and CSS, served by the app itself: nothing comes from elsewhere."""

from __future__ import annotations

from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PREFIX = "/assets-inspector"
FOLDER = Path(__file__).resolve().parent.parent / "ui" / "assets"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


class _Revalidated(StaticFiles):
    """Files that a browser may keep but asks about: an upgrade shows at the next reload."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


async def _plotly(_: Request) -> Response:
    headers = {"cache-control": "no-cache"}
    return FileResponse(PLOTLY, media_type="text/javascript", headers=headers)


def routes() -> list[BaseRoute]:
    """``/assets-inspector/…``: our own files, and plotly.min.js of the installed plotly."""
    return [
        Route(f"{PREFIX}/plotly.min.js", _plotly),
        Mount(PREFIX, _Revalidated(directory=FOLDER)),
    ]
