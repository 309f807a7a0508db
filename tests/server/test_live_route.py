"""The live route over a real WebSocket session, a real store and no browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketTestSession

from inspector.charts.specs import lines, matrix, to_dict
from inspector.events import CommandApplied, NonFinite, RunFinished, RunStarted
from inspector.quantities import SeriesKey
from inspector.server import live
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCALARS = (SeriesKey("loss"), SeriesKey("lr"))
PARAMETERS = tuple(SeriesKey("grad_norm", "parameter", name) for name in ("a.weight", "a.bias"))


class Tab:
    """A browser tab as far as the socket can tell: decodes frames, keeps what it was sent."""

    def __init__(self, socket: WebSocketTestSession) -> None:
        self.socket = socket
        self.steps: dict[tuple[int, int], list[float]] = {}
        self.planes: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        self.subjects: dict[tuple[int, int], list[str]] = {}
        self.state: dict[str, Any] = {}
        self.markers: list[Any] = []

    def subscribe(self, run: str, *charts: Any, max_points: int = 2000) -> None:
        fields = [to_dict(chart) for chart in charts]
        self.socket.send_json(
            {"type": "subscribe", "id": "b1", "run": run, "charts": fields,
             "max_points": max_points}
        )  # fmt: skip

    def receive(self) -> dict[str, Any]:
        """Takes one frame in and acknowledges it."""
        frame = self.socket.receive_bytes()
        length = int.from_bytes(frame[:4], "little")
        header: dict[str, Any] = json.loads(frame[4 : 4 + length])
        base = 4 + length
        assert base % 8 == 0
        for board in header["boards"]:
            self.state = board.get("state", self.state)
            self.markers += board.get("markers", [])
            for chart, line, update in board.get("charts", []):
                self._take((chart, line), update, frame, base)
        self.socket.send_json({"type": "ack", "frame": header["frame"]})
        return header

    def _take(self, place: tuple[int, int], update: Any, frame: bytes, base: int) -> None:
        offset, _, count = update["steps"]
        steps = np.frombuffer(frame, "<f8", count, base + offset)
        offset, rows, columns = update["planes"]
        planes = np.frombuffer(frame, "<f4", rows * columns, base + offset).reshape(rows, columns)
        start = update["start"]
        if start == 0:
            self.subjects[place] = update["subjects"]
            self.steps[place], self.planes[place] = steps.tolist(), planes
        else:
            self.steps[place] = self.steps[place][:start] + steps.tolist()
            self.planes[place] = np.concatenate([self.planes[place][:, :start], planes], axis=1)

    def until(self, condition: Any) -> None:
        """Takes frames until the condition holds; a frame that never comes is the test's end."""
        for _ in range(200):
            if condition():
                return
            self.receive()
        raise AssertionError("200 frames came and the condition does not hold")


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def tab(runs_dir: Path) -> Iterator[Tab]:
    app = Starlette(routes=[live.route(lambda: runs_dir)])
    with TestClient(app) as client, client.websocket_connect("/live") as socket:
        yield Tab(socket)


@pytest.fixture
def run_path(runs_dir: Path) -> Path:
    return create_run(runs_dir, "demo", {"kind": "watched", "config": {"lr": 0.1}})


def append(writer: Writer, first: int, last: int) -> None:
    for step in range(first, last):
        writer.append("scalar", step, SCALARS, [1 / (step + 1), 0.1])
        writer.append("parameter", step, PARAMETERS, [3.0, 4.0])
    assert writer.flush()


def test_a_finished_run_comes_in_one_snapshot_as_the_reader_gives_it(
    tab: Tab, run_path: Path
) -> None:
    with closing(Writer(run_path)) as writer:
        append(writer, 0, 500)
        writer.event(499, RunFinished())
    tab.subscribe("demo", lines("loss", "lr"), matrix("grad_norm", by="module"), max_points=100)
    tab.until(lambda: len(tab.steps) == 3 and tab.state)
    with Run(run_path) as run:
        loss = run.series("loss", max_points=100)
        norms = run.matrix("grad_norm", by="module")
    assert tab.steps[0, 0] == loss.steps.tolist()
    np.testing.assert_array_equal(tab.planes[0, 0][0], loss.values)
    np.testing.assert_array_equal(tab.planes[0, 0][1:3], [loss.low, loss.high])
    assert tab.subjects[1, 0] == ["a"]
    np.testing.assert_array_equal(tab.planes[1, 0][0], norms.values[0])
    assert tab.planes[1, 0][0, 0] == 5  # root of 3² + 4²
    assert tab.state["status"] == "finished"


def test_rows_that_are_written_later_follow(tab: Tab, run_path: Path) -> None:
    with closing(Writer(run_path)) as writer:
        append(writer, 0, 10)
        tab.subscribe("demo", lines("loss"))
        tab.until(lambda: len(tab.steps.get((0, 0), [])) == 10)
        append(writer, 10, 30)
        tab.until(lambda: len(tab.steps[0, 0]) == 30)
    assert tab.steps[0, 0] == list(range(30))
    np.testing.assert_allclose(tab.planes[0, 0][0], 1 / np.arange(1, 31), rtol=1e-6)


def test_a_run_that_has_recorded_nothing_yet_starts_to_show_when_it_does(
    tab: Tab, run_path: Path
) -> None:
    tab.subscribe("demo", lines("loss"), matrix("grad_norm", by="module"))
    tab.until(lambda: tab.state)
    assert tab.state["status"] == "empty"
    assert tab.steps[0, 0] == []
    with closing(Writer(run_path)) as writer:
        append(writer, 0, 5)
        tab.until(lambda: len(tab.steps[0, 0]) == 5 and len(tab.steps[1, 0]) == 5)
        assert tab.subjects[1, 0] == ["a"]


def test_a_buffer_that_doubles_is_sent_thinned(tab: Tab, run_path: Path) -> None:
    with closing(Writer(run_path)) as writer:
        append(writer, 0, 60)
        tab.subscribe("demo", lines("loss"), max_points=50)
        tab.until(lambda: len(tab.steps.get((0, 0), [])) > 0)
        append(writer, 60, 400)
        tab.until(lambda: tab.steps[0, 0][-1] == 399)
    assert len(tab.steps[0, 0]) <= 100
    assert np.nanmin(tab.planes[0, 0][1]) == np.float32(1 / 400)
    assert np.nanmax(tab.planes[0, 0][2]) == 1


def test_events_come_as_markers_and_as_state(tab: Tab, run_path: Path) -> None:
    with closing(Writer(run_path)) as writer:
        writer.event(0, RunStarted())
        append(writer, 0, 3)
        tab.subscribe("demo", lines("loss"))
        tab.until(lambda: tab.state)
        applied = CommandApplied(command_id="c", name="lr", requested=0.01, effective=0.01)
        writer.event(3, applied)
        writer.event(3, NonFinite(where="activation", module="net.1", module_type="Log"))
        assert writer.flush()
        tab.until(lambda: len(tab.markers) == 2 and tab.state["nonfinite"])
    assert [marker[:3] for marker in tab.markers] == [
        [3, "command_applied", "note"],
        [3, "nonfinite", "critical"],
    ]
    assert "lr = 0.01" in tab.markers[0][3]
    assert ["lr", "0.01"] in tab.state["controls"]
    assert tab.state["nonfinite"] == [3, "Non-finite activation of net.1 (Log)."]


@pytest.mark.usefixtures("run_path")
@pytest.mark.parametrize("name", ["nowhere", "../demo", "", "..", "demo/../demo"])
def test_a_name_that_is_no_run_is_refused_with_a_sentence(tab: Tab, name: str) -> None:
    tab.subscribe(name, lines("loss"))
    answer = tab.socket.receive_json()
    assert answer["type"] == "error"
    assert answer["message"].startswith("Expected the name of a run")


@pytest.mark.usefixtures("run_path")
def test_a_chart_that_is_none_is_refused_and_the_socket_lives(tab: Tab) -> None:
    tab.socket.send_json({"type": "subscribe", "id": "x", "run": "demo", "charts": [{"kind": "?"}]})
    assert "Expected a chart of kind line" in tab.socket.receive_json()["message"]
    tab.subscribe("demo", lines("loss"))
    tab.until(lambda: tab.state)


def test_two_tabs_share_one_feed_and_the_last_one_ends_it(
    runs_dir: Path, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = []

    class Counted(live.FeedHub):
        def __init__(self) -> None:
            super().__init__()
            feeds.append(self)

    monkeypatch.setattr(live, "FeedHub", Counted)
    app = Starlette(routes=[live.route(lambda: runs_dir)])
    with closing(Writer(run_path)) as writer, TestClient(app) as client:
        append(writer, 0, 3)
        with client.websocket_connect("/live") as one, client.websocket_connect("/live") as two:
            for socket in (one, two):
                other = Tab(socket)
                other.subscribe("demo", lines("loss"))
                other.until(lambda other=other: other.steps)
            (hub,) = feeds
            assert len(hub.open) == 1
            feed = hub.open[0]
        feed.join(10)
        assert not feed.alive
        assert not hub.open
