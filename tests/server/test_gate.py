"""The probe table: who is let in, and who is refused with which status."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from inspector.errors import ConfigError
from inspector.server import gate
from inspector.server.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TOKEN = "0123456789abcdefTOKEN"
HOME = "http://127.0.0.1:8501"
SOCKET = "ws://127.0.0.1:8501/live"


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.method} {request.url.path}?{request.url.query}")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("welcome")
    await socket.close()


def client_of(settings: Settings, address: str = HOME) -> TestClient:
    app = Starlette(
        routes=[
            Route("/{path:path}", page, methods=["GET", "POST", "PUT"]),
            WebSocketRoute("/live", echo),
        ],
        middleware=[Middleware(gate.Gate, settings=settings)],
    )
    return TestClient(app, base_url=address, follow_redirects=False)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with client_of(Settings(TOKEN)) as made:
        yield made


@pytest.fixture
def trusted(client: TestClient) -> TestClient:
    assert client.get(f"/?token={TOKEN}").status_code == 303
    return client


def status_of_socket(client: TestClient, **headers: str) -> int | str:
    """What the socket said, or the close code of the refusal."""
    try:
        with client.websocket_connect(SOCKET, headers=headers) as socket:
            return str(socket.receive_text())
    except WebSocketDenialResponse as denial:
        return int(denial.status_code)
    except WebSocketDisconnect as closed:
        return int(closed.code)


def test_the_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(client: TestClient) -> None:
    answer = client.get(f"/live-page?token={TOKEN}&run=a%20b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/live-page?run=a+b"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"torch-inspector-8501={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert client.get("/x").text == "GET /x?"


def test_a_redirect_never_leaves_the_server(client: TestClient) -> None:
    answer = client.get(f"{HOME}//evil.example/x?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/x"


def test_without_the_token_a_page_says_what_to_do(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 401
    assert "Open the link that torch-inspector printed" in answer.text


@pytest.mark.parametrize("wrong", ["", "0123456789abcdefTOKEM", TOKEN[:-1], TOKEN + "x", "\x00"])
def test_a_wrong_token_is_refused(client: TestClient, wrong: str) -> None:
    assert client.get("/", params={"token": wrong}).status_code in (401, 403)
    cookie = f"torch-inspector-8501={wrong}".strip("\x00")
    assert client.get("/", headers={"cookie": cookie}).status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "localhost@evil.example",
     "127.0.0.1:8501/evil", "192.168.0.7:8501", "localhost:x", "", "localhost#.evil"],
)  # fmt: skip
def test_another_host_name_is_refused_even_with_the_cookie(trusted: TestClient, host: str) -> None:
    assert trusted.get("/", headers={"host": host}).status_code == 421
    assert status_of_socket(trusted, host=host, origin=f"http://{host}") == 1008


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1:9", "[::1]:8501", "localhost."])
def test_loopback_goes_by_any_of_its_names_and_ports(client: TestClient, host: str) -> None:
    headers = {"host": host, "cookie": f"torch-inspector-8501={TOKEN}"}
    assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost:9999", "http://127.0.0.1:9999", "null",
     "https://127.0.0.1:8501", "http://127.0.0.1:8501.evil.example"],
)  # fmt: skip
def test_another_origin_is_refused_even_with_the_cookie(trusted: TestClient, origin: str) -> None:
    assert trusted.get("/", headers={"origin": origin}).status_code == 403
    assert status_of_socket(trusted, origin=origin) == 1008


def test_a_socket_needs_an_origin_and_the_cookie(client: TestClient) -> None:
    assert status_of_socket(client, origin=HOME) == 1008  # no cookie
    client.get(f"/?token={TOKEN}")
    assert status_of_socket(client) == 1008  # no origin: not a browser
    assert status_of_socket(client, origin=HOME) == "welcome"


def test_what_changes_something_needs_an_origin(trusted: TestClient) -> None:
    assert trusted.put("/upload").status_code == 403
    assert trusted.post("/upload", headers={"origin": HOME}).status_code == 200


def test_the_token_in_the_address_opens_nothing_but_pages(client: TestClient) -> None:
    assert client.post(f"/?token={TOKEN}", headers={"origin": HOME}).status_code == 401


def test_a_cookie_of_another_server_on_the_machine_does_not_disturb(client: TestClient) -> None:
    jar = f"torch-inspector-8502=other; weird; a=b=c; torch-inspector-8501={TOKEN}"
    assert client.get("/", headers={"cookie": jar}).status_code == 200


def test_tokens_are_compared_in_constant_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(given: bytes, held: bytes) -> bool:
        compared.append((given, held))
        return given == held

    monkeypatch.setattr(hmac, "compare_digest", spy)
    client.get("/?token=guess")
    client.get("/", headers={"cookie": "torch-inspector-8501=stale"})
    assert compared == [(b"guess", TOKEN.encode()), (b"stale", TOKEN.encode())]


def test_every_answer_forbids_foreign_content_and_framing(trusted: TestClient) -> None:
    for answer in (trusted.get("/"), trusted.get("/", headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "img-src 'self' data: blob:" in policy
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_beyond_loopback_addresses_and_named_hosts_are_ours_and_nothing_else() -> None:
    settings = Settings(TOKEN, hosts=frozenset({"gpu-box"}), any_address=True)
    with client_of(settings) as client:
        client.get(f"/?token={TOKEN}")
        headers = {"cookie": f"torch-inspector-8501={TOKEN}"}
        for host, status in (("gpu-box:8501", 200), ("10.0.0.7", 200), ("gpu-box.evil", 421)):
            assert client.get("/", headers={"host": host, **headers}).status_code == status


def test_a_weak_token_is_not_accepted_as_setting() -> None:
    with pytest.raises(ConfigError, match="16 or more letters"):
        Settings("short")
    with pytest.raises(ConfigError, match="leave TORCH_INSPECTOR_TOKEN unset"):
        Settings("a;b" * 10, Path("runs"))
