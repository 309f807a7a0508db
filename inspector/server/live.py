"""The WebSocket route ``/live``: one socket per browser tab, any number of boards on it.

The browser subscribes with JSON; frames are binary (see ``wire.py``). A frame goes out when the
feed shows something new, at most four times a second, and only after the browser has painted the
one before: a slow browser misses frames, never points. Details in ``docs/live-view.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from inspector.charts.specs import Chart, LineChart, MatrixChart, from_dict
from inspector.errors import InspectorError
from inspector.quantities import SeriesKey, scope_of
from inspector.server.feed import Feed, FeedHub, Key
from inspector.server.wire import Frame
from inspector.store.layout import run_path
from inspector.views.live import Buffer, MatrixKey, Seen
from inspector.views.state import RunState, to_dict

T = TypeVar("T")

ACK_S = 15.0
LINE_POINTS = 2000
MATRIX_POINTS = 300
NUMBER_POINTS = 128
MOST_CHARTS = 64


class Subscription:
    """One board of a tab: its charts, their buffers, and how much of them the tab has."""

    def __init__(self, feed: Feed, charts: list[Chart]) -> None:
        self.feed = feed
        self._charts = charts
        self._buffers: list[tuple[int, int, Buffer]] = []  # chart, line, buffer
        self._seen: list[Seen] = []
        self._state: RunState | None = None
        self._marker = -1

    async def load(self, max_points: int) -> None:
        """Has the buffers made in the feed's thread.

        Raises:
            InspectorError: the run cannot be read.
        """
        await _result(self.feed.opened)
        for place, chart in enumerate(self._charts):
            points = _points(chart, max_points)
            for line, key in enumerate(_keys(chart)):
                buffer = await _result(self.feed.buffer(key, points))
                self._buffers.append((place, line, buffer))
                self._seen.append(Seen())

    def news(self, frame: Frame) -> dict[str, Any] | None:
        """What the tab lacks, with its arrays added to the frame; None when it has everything."""
        fields: dict[str, Any] = {}
        updates = []
        with self.feed.lock:
            for index, (chart, line, buffer) in enumerate(self._buffers):
                update, self._seen[index] = buffer.after(self._seen[index])
                if update is not None:
                    updates.append((chart, line, update))
        if updates:
            fields["charts"] = [
                [chart, line, frame.update(update)] for chart, line, update in updates
            ]
            fields["wall"] = self.feed.newest_wall
        state = self.feed.state
        if state is not None and state != self._state:
            self._state = state
            fields["state"] = to_dict(state)
        markers = [mark for mark in self.feed.markers if mark.seq > self._marker]
        if markers:
            self._marker = markers[-1].seq
            fields["markers"] = [[mark.step, mark.kind, mark.level, mark.text] for mark in markers]
        return fields or None


class Session:
    """One open socket: subscriptions come in, frames go out."""

    def __init__(self, socket: WebSocket, hub: FeedHub, runs_dir: Path) -> None:
        self._socket = socket
        self._hub = hub
        self._runs_dir = runs_dir
        self._subscriptions: dict[str, Subscription] = {}
        self._exits: dict[str, contextlib.ExitStack] = {}
        self._wake = asyncio.Event()
        self._acked = asyncio.Event()
        self._frames = 0

    async def run(self) -> None:
        """Serves until the browser goes away."""
        await self._socket.accept()
        sender = asyncio.create_task(self._send_frames())
        try:
            await self._receive()
        except WebSocketDisconnect:
            pass
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender
            for name in list(self._exits):
                self._unsubscribe(name)

    async def _receive(self) -> None:
        while True:
            message = json.loads(await self._socket.receive_text())
            kind, name = message.get("type"), str(message.get("id", ""))
            if kind == "ack":
                self._acked.set()
            elif kind == "unsubscribe":
                self._unsubscribe(name)
            elif kind == "subscribe":
                self._unsubscribe(name)
                try:
                    await self._subscribe(name, message)
                except InspectorError as error:
                    self._unsubscribe(name)
                    await self._socket.send_json(
                        {"type": "error", "id": name, "message": str(error)}
                    )

    async def _subscribe(self, name: str, message: dict[str, Any]) -> None:
        charts = [from_dict(fields) for fields in message.get("charts", [])[:MOST_CHARTS]]
        path = run_path(self._runs_dir, str(message.get("run", "")))
        max_points = min(max(int(message.get("max_points", LINE_POINTS)), 50), 20_000)
        exits = self._exits[name] = contextlib.ExitStack()
        rank = max(int(message.get("rank", 0)), 0)
        feed = exits.enter_context(self._hub.watching(path, rank))
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: the server is stopping
                loop.call_soon_threadsafe(self._wake.set)

        exits.callback(feed.listen(wake))
        subscription = Subscription(feed, charts)
        await subscription.load(max_points)
        self._subscriptions[name] = subscription
        self._wake.set()

    def _unsubscribe(self, name: str) -> None:
        self._subscriptions.pop(name, None)
        exits = self._exits.pop(name, None)
        if exits is not None:
            exits.close()

    async def _send_frames(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            content = self._frame()
            if content is None:
                continue
            self._acked.clear()
            await self._socket.send_bytes(content)
            if any(subscription.feed.closed for subscription in self._subscriptions.values()):
                await self._socket.close(1012, "The run could not be read on.")
                return
            try:
                await asyncio.wait_for(self._acked.wait(), ACK_S)
            except TimeoutError:
                await self._socket.close(1001, "No frame was painted for a while.")
                return

    def _frame(self) -> bytes | None:
        frame = Frame()
        boards = []
        for name, subscription in self._subscriptions.items():
            news = subscription.news(frame)
            if news is not None:
                boards.append({"id": name, **news})
        if not boards:
            return None
        self._frames += 1
        return frame.pack({"frame": self._frames, "boards": boards})


def route(runs_dir: Callable[[], Path]) -> WebSocketRoute:
    """The route of the app; all its sockets share one hub of feeds."""
    hub = FeedHub()

    async def live(socket: WebSocket) -> None:
        await Session(socket, hub, runs_dir()).run()

    return WebSocketRoute("/live", live)


async def _result(future: Future[T]) -> T:
    """The result of another thread's work; a viewer who leaves does not cancel it for others."""
    return await asyncio.shield(asyncio.wrap_future(future))


def _keys(chart: Chart) -> list[Key]:
    if isinstance(chart, LineChart):
        return [line.key for line in chart.lines]
    if isinstance(chart, MatrixChart):
        return [MatrixKey(chart.quantity, chart.by, chart.subjects)]
    shown = (chart.quantity, *([chart.beside] if chart.beside else []))
    return [SeriesKey(quantity, scope_of(quantity)) for quantity in shown]


def _points(chart: Chart, max_points: int) -> int:
    if isinstance(chart, LineChart):
        return max_points
    return MATRIX_POINTS if isinstance(chart, MatrixChart) else NUMBER_POINTS
