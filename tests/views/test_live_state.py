"""What the status strip says, from events and signs of life."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from inspector.events import (
    CheckpointSaved,
    CommandApplied,
    Event,
    NonFinite,
    RunFailed,
    RunFinished,
    ScheduleChanged,
    StepSkipped,
    StoredEvent,
)
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views.state import StateKeeper


def stored(*events: Event) -> list[StoredEvent]:
    return [StoredEvent(seq, 10 * seq, 0, 0.0, 0, event) for seq, event in enumerate(events, 1)]


def applied(name: str, value: object) -> CommandApplied:
    return CommandApplied(command_id=name, name=name, requested=value, effective=value)


def state_after(tmp_path: Path, *events: Event) -> tuple[StateKeeper, Run]:
    path = create_run(tmp_path, "demo", {"config": {"lr": 0.1, "momentum": 0.0}})
    with closing(Writer(path)) as writer:
        writer.heartbeat(41, "running", total_steps=100)
    keeper = StateKeeper()
    keeper.take(stored(*events))
    return keeper, Run(path)


def test_controls_in_force_are_named_where_they_differ_from_the_default(tmp_path: Path) -> None:
    keeper, run = state_after(
        tmp_path,
        applied("lr", 0.003),
        applied("clip", "norm"),
        applied("clip_threshold", 0.5),
        applied("zero_grad", False),
        applied("max_steps_per_s", 2.0),
    )
    with run:
        state = keeper.state(run)
    assert dict(state.controls) == {
        "lr": "0.003",
        "clip": "norm 0.5",
        "zero_grad": "off",
        "slow motion": "2 steps/s",
    }
    assert (state.step, state.total_steps) == (40, 100)  # step 41 is running


def test_the_first_non_finite_value_is_the_one_that_is_named(tmp_path: Path) -> None:
    first = NonFinite(where="activation", module="a")
    keeper, run = state_after(tmp_path, first, NonFinite(where="loss"))
    with run:
        assert keeper.state(run).nonfinite == (10, "Non-finite activation of a.")


def test_a_failure_is_told(tmp_path: Path) -> None:
    keeper, run = state_after(
        tmp_path, RunFailed(error="ValueError", message="no", phase="forward")
    )
    with run:
        assert keeper.state(run).problem == "Run failed in forward: ValueError: no"


def test_events_that_come_twice_are_marked_once() -> None:
    keeper = StateKeeper()
    events = stored(applied("lr", 0.1), CheckpointSaved(path="a.pt"), RunFinished())
    keeper.take(events[:2])
    keeper.take(events)
    assert [marker.kind for marker in keeper.markers] == ["command_applied", "checkpoint_saved"]
    assert keeper.markers[0].text == "Command at step 10: lr = 0.1"


def test_how_often_is_measured_follows_the_schedule_and_what_was_asked_for(tmp_path: Path) -> None:
    thinned = ScheduleChanged(probe="modules and parameters", every=200)
    keeper, run = state_after(tmp_path, thinned)
    with run:
        assert keeper.state(run).measured == 200
        later = applied("capture_every", 10), applied("capture_every", 0)
        keeper.take(stored(thinned, *later))
        assert keeper.state(run).measured == 10  # where the automatic schedule goes on from


def test_a_script_that_is_gone_without_a_word_is_explained(tmp_path: Path) -> None:
    path = create_run(tmp_path, "lost", {"kind": "watched"})
    killed = (
        "import os, pathlib, sys; from inspector.store.writer import Writer; "
        "writer = Writer(pathlib.Path(sys.argv[1])); writer.heartbeat(41, 'running'); "
        "writer.flush(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False, timeout=60)
    with Run(path) as run:
        state = StateKeeper().state(run)
    assert state.status == "crashed"
    assert state.problem.startswith("The script is gone without having ended the run")


def test_a_run_that_skips_every_step_and_a_stop_that_is_not_taken_are_said(tmp_path: Path) -> None:
    path = create_run(tmp_path, "stuck", {"kind": "watched"})
    why = StepSkipped(reason="GradScaler found non-finite gradients")
    with closing(Writer(path)) as writer, Run(path) as run:
        keeper = StateKeeper()
        keeper.take([StoredEvent(1, 20, 0, 0.0, 0, why)])

        def waiting(skipped: int, loss: str = "") -> str:
            writer.heartbeat(20, "running", stopping=True, skipped=skipped, loss=loss)
            writer.flush()
            return keeper.state(run).waiting

        assert waiting(9) == ""  # a GradScaler begins with some
        said = "No step in 12 tries: GradScaler found non-finite gradients"
        assert waiting(12) == f"{said}."
        assert waiting(12, "nan") == f"{said}; the loss is nan."
        assert ("stop", "waits for watch.should_stop") in keeper.state(run).controls
        assert waiting(0) == ""  # a step was made
