"""What was changed by hand is told from what to what, wherever the earlier value is known."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.config import RunConfig
from inspector.events import CommandApplied
from inspector.store.reader import Run
from inspector.views import compare_settings, events
from inspector.views.state import StateKeeper
from tests.runs import train

CHANGES: tuple[tuple[int, str, Any], ...] = (
    (2, "lr", 0.03),
    (3, "zero_grad", False),
    (4, "max_steps_per_s", 500.0),
    (5, "max_steps_per_s", None),
    (6, "clip", "norm"),
    (7, "lr", 0.03),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    by_hand = [{"step": step, "control": name, "value": value} for step, name, value in CHANGES]
    config = RunConfig(model="mlp", data="digits", lr=0.1, steps=9, by_hand=by_hand)
    return train(config, tmp_path_factory.mktemp("told"), "told")


def test_events_markers_and_compare_say_both_values(run: Run) -> None:
    wanted = [
        "lr 0.1 → 0.03",
        "zero_grad on → off",
        "max_steps_per_s = 500",
        "max_steps_per_s 500 → off",
        "clip off → norm",
        "lr = 0.03",
    ]
    recorded = run.events()
    rows = [row.text for row in events.rows(recorded) if row.kind == "Command"]
    assert rows[::-1] == wanted
    keeper = StateKeeper()
    keeper.take(recorded)
    told = [mark.text for mark in keeper.markers if mark.kind == "command_applied"]
    assert told[0] == "Command at step 2: lr 0.1 → 0.03"
    assert [one.what for one in compare_settings.interventions("told", recorded)] == wanted


def test_an_event_of_an_older_run_says_what_it_knows() -> None:
    assert CommandApplied(command_id="1", name="lr", effective=0.03).text == "lr = 0.03"


def test_groups_say_it_in_their_note() -> None:
    event = CommandApplied(
        command_id="1", name="lr", effective=0.2, before=0.1, target="0/1", where="the head",
        note="the head 0.1 → 0.2",
    )  # fmt: skip
    assert event.text == "lr of the head = 0.2 (the head 0.1 → 0.2)"
