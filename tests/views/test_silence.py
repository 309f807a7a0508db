"""What is said while no step comes."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from inspector.config import RunConfig
from inspector.events import Notice, RunStarted, StoredEvent
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.records import Heartbeat
from inspector.store.writer import Writer
from inspector.views.silence import Beginning, silence
from inspector.views.state import StateKeeper

UNCOMPILED = Notice(message="torch.compile does not work here (x): the model is trained uncompiled")


def said(
    *, step: int, seconds: float, kind: str = "built_in", resumed: int | None = None,
    notice: Notice | None = None, written: float = 0.0, **config: Any,
) -> str:  # fmt: skip
    """After so many seconds in the step; the writer gave a sign of life ``written`` s ago."""
    beginning = Beginning()
    events = [RunStarted(resumed_at=resumed), *([notice] if notice else [])]
    beginning.take(StoredEvent(at, 0, 0, 1000.0, 0, one) for at, one in enumerate(events))
    now = 1000.0 + seconds
    beat = Heartbeat(step, "running", 100, 1000.0, now - written, True)
    return silence(beginning, beat, kind=kind, config=config, now=now)


def test_a_writer_that_is_silent_too_is_told_from_a_slow_step() -> None:
    assert said(step=7, seconds=30, written=9.0).startswith("No step for 30 s")
    assert said(step=7, seconds=30, written=30.0) == (
        "Nothing could be recorded for 30 s: the run's disk is full or does not answer, or its "
        "process is suspended."
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"compile": True}, "Compiling the model: the first step takes a while (12 s so far)."),
        ({"compile": "aot_eager", "resumed": 40, "step": 40},
         "Compiling the model: the first step takes a while (12 s so far)."),
        ({"compile": True, "notice": UNCOMPILED},
         "Waiting for the first step: its batch is loaded and computed (12 s so far)."),
        ({"workers": 2},
         "Waiting for the first step: the loading processes begin (12 s so far)."),
        ({"kind": "watched"}, "Waiting for the script's first step (12 s so far)."),
        ({"step": 7}, "No step for 12 s: a slow step, a validation or a checkpoint."),
        ({"step": 22, "compile": True},
         "No step for 12 s: the first validation and batches of another size are compiled anew."),
    ],
)  # fmt: skip
def test_a_silence_is_explained(given: dict[str, Any], sentence: str) -> None:
    assert said(**{"step": 0, "seconds": 12.0, **given}) == sentence


def test_steps_that_come_are_not_talked_about() -> None:
    assert said(step=0, seconds=1.0, compile=True) == ""
    assert said(step=7, seconds=3.0) == ""
    assert silence(Beginning(), None, kind="built_in", config={}, now=5.0) == ""


@pytest.mark.parametrize(("state", "spoken"), [("running", True), ("paused", False)])
def test_the_strip_is_told_while_the_run_goes_on(tmp_path: Path, state: str, spoken: bool) -> None:
    path = create_run(tmp_path, "run", {"kind": "built_in", "config": RunConfig().to_dict()})
    with closing(Writer(path)) as writer:
        writer.heartbeat(0, state, total_steps=100)
        writer.event(0, RunStarted())
        writer.flush()
        keeper = StateKeeper()
        with Run(path) as run:
            (started,) = run.events()
            keeper.take([StoredEvent(1, 0, 0, time.time() - 30, 0, started.event)])
            assert keeper.state(run).waiting.startswith("Waiting for the first step") == spoken
            writer.heartbeat(1, state, total_steps=100)
            writer.flush()
            assert keeper.state(run).waiting == ""
