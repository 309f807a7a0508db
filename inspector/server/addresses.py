"""Addresses that lead elsewhere: the first page lies at the root, though its file has a name."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Route


async def _to_root(request: Request) -> RedirectResponse:
    query = request.url.query
    return RedirectResponse(f"/?{query}" if query else "/", status_code=303)


def routes() -> list[BaseRoute]:
    """``/start``, which Streamlit itself calls a page that does not exist."""
    return [Route("/start", _to_root), Route("/start/", _to_root)]
