"""What the status strip says, from events and signs of life."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from inspector.events import (
    CheckpointSaved,
    CommandApplied,
    Event,
    NonFinite,
    RunFailed,
    RunFinished,
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
