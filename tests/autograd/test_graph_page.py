"""The graph page as Streamlit draws it, and a graph captured from training that is watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import nn

import inspector
from inspector.commands import Command
from inspector.store.control import ControlReader, ControlWriter
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from tests.autograd.graph_pages import record

SCRIPT = """
from inspector.store.reader import Run
from inspector.ui.graph_page import render
with Run({path!r}) as run:
    render(run)
"""


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """A run that is going on, without a graph so far."""
    path = create_run(tmp_path, "going", {"kind": "watched", "config": {}})
    writer = Writer(path)
    writer.heartbeat(3, "running")
    with Run(path) as run:
        assert until(lambda: run.status == "running")
    yield path
    writer.close()


def test_a_graph_every_so_many_steps_is_asked_for(live: Path) -> None:
    app = AppTest.from_string(SCRIPT.format(path=str(live)), default_timeout=60).run()
    assert not app.exception
    assert "No graph has been captured yet" in app.info[0].value
    app.number_input(key="graph/going/every").set_value(25).run()
    app.button(key="graph/every/set").click().run()
    app.button(key="graph/capture").click().run()
    reader = ControlReader(live)
    commands = [(c.name, c.control, c.value) for c in reader.poll()]
    reader.close()
    assert commands == [("set", "graph_every", 25), ("capture_graph", "", None)]


def test_the_side_column_says_what_is_shown_and_where_it_was_measured(tmp_path: Path) -> None:
    record(tmp_path, "done", nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), {
        1: lambda m: m(torch.ones(4, 2)).sum(), 2: lambda m: m(torch.ones(4, 2)).square().sum(),
    })  # fmt: skip
    script = SCRIPT.format(path=str(tmp_path / "done"))
    app = AppTest.from_string(script, default_timeout=60).run()
    assert not app.exception
    app.selectbox(key="graph/done/colour").set_value("time").run()
    said = " ".join(caption.value for caption in app.caption)
    assert "by the host's clock" in said
    app.toggle(key="graph/done/path").set_value(True).run()
    said = " ".join(caption.value for caption in app.caption)
    assert "gets the smallest gradient" in said
    app.selectbox(key="graph/done/with").set_value(1).run()
    assert not app.exception
    assert any("1 only in step 2" in text.value for text in app.markdown)
    app.selectbox(key="graph/done/difference").set_value(0).run()
    assert not app.exception
    assert any("PowBackward0" in text.value for text in app.markdown)


def test_watched_training_stores_times_and_module_calls(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / "watched"
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="watched") as watch:
        with closing(ControlWriter(path)) as writer:
            writer.send(Command(name="capture_graph"))

        def step_and_look() -> bool:
            loss = model(torch.ones(4, 2)).square().mean()
            watch.record(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with Run(path) as run:
                return bool(run.documents("graph"))

        assert until(step_and_look)
    with Run(path) as run:
        step, _ = run.documents("graph")[0]
        document = run.document("graph", step)
    assert [call["module"] for call in document["calls"]] == ["", "0", "1", "2"]
    assert all(node["backward_us"] > 0 for node in document["nodes"])
