"""The gate: everything that reaches the app passes here first.

Streamlit checks neither Host nor Origin of custom routes, and by default lets any page of the
machine open its WebSocket. The gate refuses, in this order: an unknown Host (DNS rebinding), a
foreign or missing Origin, a missing or wrong token. The token arrives once in the link, and is
exchanged for a cookie that scripts cannot read.
"""

from __future__ import annotations

import hmac
import html
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspector.server.policy import HEADERS
from inspector.server.settings import Settings

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_COOKIE = "torch-inspector"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not let in: an HTTP status and a sentence."""

    status: int
    reason: str


class Gate:
    """ASGI middleware that lets in whoever holds the token, under a name that is ours."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._check_address(scope, origin_needed=True) or self._check_cookie(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        refusal = self._check_address(scope, origin_needed=scope["method"] not in _SAFE)
        if refusal is None and scope["method"] == "GET" and "token" in _query(scope):
            await self._exchange(scope, with_headers)
            return
        refusal = refusal or self._check_cookie(scope)
        if refusal is None:
            await self._app(scope, receive, with_headers)
        else:
            await _respond(with_headers, refusal.status, _page(refusal))

    async def _exchange(self, scope: Scope, send: Send) -> None:
        """Trades the token of the link for the cookie, and drops it from the address bar."""
        query = _query(scope)
        if not self._is_token(query.pop("token")):
            refusal = Refusal(403, "This link's token is not the one of the running server.")
            await _respond(send, refusal.status, _page(refusal))
            return
        # Two leading slashes would make the redirect point at another host.
        path = "/" + quote(str(scope["path"]).lstrip("/\\"))
        target = f"{path}?{urlencode(query)}" if query else path
        cookie = f"{_cookie_name(scope)}={self._settings.token}; Path=/; HttpOnly; SameSite=Lax" + (
            "; Secure" if scope.get("scheme") == "https" else ""
        )
        headers = [(b"location", target.encode()), (b"set-cookie", cookie.encode("latin-1"))]
        await _respond(send, 303, "", headers)

    def _check_address(self, scope: Scope, *, origin_needed: bool) -> Refusal | None:
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return Refusal(421, "This server does not answer to that host name.")
        origins = _values(scope, b"origin")
        if not origins:
            return Refusal(403, "An Origin header is required here.") if origin_needed else None
        scheme = "https" if scope.get("scheme") in ("https", "wss") else "http"
        if origins != [f"{scheme}://{hosts[0]}"]:
            return Refusal(403, "Requests from other origins are refused.")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        if parts.netloc != host or "@" in host:
            return False
        if name in _LOOPBACK or name in self._settings.hosts:
            return True
        return self._settings.any_address and _is_address(name)

    def _check_cookie(self, scope: Scope) -> Refusal | None:
        if any(self._is_token(value) for value in _cookies(scope, _cookie_name(scope))):
            return None
        return Refusal(401, "Open the link that torch-inspector printed when it started.")

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self._settings.token.encode())


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))


def _cookie_name(scope: Scope) -> str:
    """Cookies ignore ports, so two servers on one machine need two names."""
    server = scope.get("server")
    return f"{_COOKIE}-{server[1]}" if server else _COOKIE


def _cookies(scope: Scope, name: str) -> Iterable[str]:
    for header in _values(scope, b"cookie"):
        for pair in header.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                yield value


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _page(refusal: Refusal) -> str:
    return f"""<!doctype html><meta charset="utf-8"><title>torch-inspector</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1rem;
color-scheme:light dark}}input,button{{font:inherit;padding:.4rem .7rem}}</style>
<h1>torch-inspector</h1><p>{html.escape(refusal.reason)}</p>
<form method="get" action="/"><input name="token" type="password" placeholder="Token"
autocomplete="off" aria-label="Token"> <button>Open</button></form>"""


async def _respond(
    send: Send, status: int, body: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    content = body.encode()
    start = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})
