"""An offline run of W&B: its file is decoded with W&B's own message types."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import LOSS, NORM, STEPS, known

from inspector.exports.export import export
from inspector.exports.tables import column
from inspector.store.reader import Run

_BLOCK = 32768


def records(path: Path) -> Iterator[bytes]:
    """The LevelDB log that a .wandb file is: blocks of 32 KiB, records cut at their ends."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or its last part
            yield whole
            whole = b""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Connections that anything makes to the outside, by way of a proxy."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    seen.append(server.accept()[1])
                except OSError:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
        yield seen
        server.shutdown(socket.SHUT_RDWR)


def test_offline_run_holds_the_history_and_nobody_is_called(
    one_rank: Path, tmp_path: Path, calls: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.proto import wandb_internal_pb2

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with Run(one_rank) as run:
        made = export(run, "wandb", tmp_path / "out")
        times = {
            int(step): float(wall)
            for window in run.raw() for rows in window if LOSS in rows.keys
            for step, wall in zip(rows.steps, rows.walls, strict=True)
        }  # fmt: skip
    (file,) = made.path.glob("offline-run-*/run-*.wandb")
    history: dict[int, dict[str, float]] = {}
    name = ""
    for raw in records(file):
        record = wandb_internal_pb2.Record.FromString(raw)
        if record.HasField("run"):
            name = record.run.display_name
        if record.HasField("history"):
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            history[int(items["_step"])] = items
    assert name == run.name
    assert sorted(history) == list(range(STEPS))
    for key, values in known(0).items():
        for step in range(STEPS):
            found = history[step].get(column(key))
            assert (found is None) == (step not in values), (key, step)
            if found is not None:
                number, wanted = float(found), float(values[step])
                assert number == wanted or (math.isnan(number) and math.isnan(wanted))
    assert {step: one["_timestamp"] for step, one in history.items()} == pytest.approx(times)
    assert NORM in known(0)
    assert calls == []
    assert list(home.iterdir()) == []
