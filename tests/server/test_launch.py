"""Ports, the link, the settings of the process, and the bundled files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from inspector.errors import InspectorError
from inspector.server import addresses, assets, launch, settings
from inspector.server.launch import app_file, free_port

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ASSETS = Path(assets.__file__).resolve().parent.parent / "ui" / "assets"


def test_a_port_in_use_is_passed_over_or_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", None) != port
        with pytest.raises(InspectorError, match=f"port {port} .* in use; choose another --port"):
            free_port("127.0.0.1", port)


def test_an_address_that_is_not_of_this_machine_is_told_from_a_port_in_use() -> None:
    for host in ("300.1.1.1", "203.0.113.7"):  # no address; one kept for documentation
        with pytest.raises(InspectorError, match=f"name of this machine as host, but got '{host}'"):
            free_port(host, None)
    with pytest.raises(InspectorError, match="from 1 to 65535, but got 70000"):
        free_port("127.0.0.1", 70000)


def test_a_file_is_no_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(InspectorError, match=r"Expected a folder of runs, but .*runs is a file"):
        launch.serve(tmp_path / "runs")


def test_ctrl_c_before_the_server_listens_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamlit.web import cli

    def aborted(*_: object, **__: object) -> None:
        raise click.exceptions.Abort

    monkeypatch.setattr(cli, "main", aborted)
    monkeypatch.setattr(launch, "configure", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        launch.serve(tmp_path)


def test_app_file_is_what_streamlit_is_told_to_run() -> None:
    assert app_file().name == "app.py"
    assert "st.App(" in app_file().read_text("utf-8")


@pytest.mark.parametrize("path", ["/start", "/start/"])
def test_the_first_page_is_reached_by_its_name(path: str) -> None:
    client = TestClient(Starlette(routes=addresses.routes()), follow_redirects=False)
    for query in ("", "?run=one&runs=a&runs=b%20c"):
        answer = client.get(path + query)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/{query}")


def test_the_token_is_made_fresh_and_does_not_reach_child_processes() -> None:
    script = (
        "import os\n"
        "from inspector.server import settings\n"
        "one = settings.current()\n"
        "assert settings.current() is one\n"
        "assert 'TORCH_INSPECTOR_TOKEN' not in os.environ\n"
        "assert one.token not in repr(one)\n"
        "print(one.token, one.runs_dir)\n"
    )
    said = set()
    for environment in ({}, {}, {"TORCH_INSPECTOR_TOKEN": "chosen-by-the-user-1"}):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"TORCH_INSPECTOR_RUNS_DIR": "here"} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        token, runs_dir = done.stdout.split()
        assert runs_dir == "here"
        said.add(token)
    assert len(said) == 3
    assert "chosen-by-the-user-1" in said
    assert settings.TOKEN_VARIABLE not in os.environ


def test_bundled_files_are_served_and_nothing_beside_them() -> None:
    with TestClient(Starlette(routes=assets.routes())) as client:
        for name in ("live.js", "live.css", "vendor/uPlot.esm.js", "plotly.min.js"):
            answer = client.get(f"{assets.PREFIX}/{name}")
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
        for name in ("../board.py", "%2e%2e/board.py", "nothing.js"):
            assert client.get(f"{assets.PREFIX}/{name}").status_code == 404


def test_every_bundled_package_has_its_licence() -> None:
    listed = (ASSETS / "vendor" / "VENDOR.md").read_text("utf-8")
    for path in (ASSETS / "vendor").iterdir():
        if path.suffix in (".js", ".css"):
            assert f"`{path.name}`" in listed
    assert (ASSETS / "vendor" / "uPlot.LICENSE").read_text("utf-8").startswith("The MIT License")


def test_the_live_views_scripts_load_nothing_from_elsewhere() -> None:
    for name in ("live", "connection", "board", "strip", "lines", "matrix", "theme", "format"):
        text = (ASSETS / f"{name}.js").read_text("utf-8")
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "eval(" not in text
