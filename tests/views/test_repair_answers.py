"""What a person is told of a remedy or trial that the run did not do."""

from __future__ import annotations

from inspector.events import CommandApplied, CommandRefused, Event, StoredEvent
from inspector.views.repair import refused

NO = CommandRefused(command_id="a", name="lr_finder", reason="Give watch() a loss_fn.")
YES = CommandApplied(command_id="b", name="lr_finder", requested=None, effective=0.1)
OTHER = CommandRefused(command_id="c", name="schedule", reason="Your own loop.")


def stored(*events: Event) -> list[StoredEvent]:
    return [StoredEvent(seq, 10 * seq, 0, 0.0, 0, event) for seq, event in enumerate(events, 1)]


def test_a_refusal_is_told_until_the_same_was_done() -> None:
    assert refused(stored(NO, OTHER), "lr_finder") == (10, "Give watch() a loss_fn.")
    assert refused(stored(NO, YES), "lr_finder") is None
    assert refused(stored(OTHER), "lr_finder", "remedy") is None
