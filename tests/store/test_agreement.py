"""How ranks agree on the step of a command; here all of them live in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.commands import Command
from inspector.store.agreement import TOGETHER, Agreement


class Rank:
    """A rank at some step, whose listening is done by hand."""

    def __init__(self, folder: Path, rank: int, *, patience: float = 60.0) -> None:
        self.step = 0
        self.agreement = Agreement(folder, rank, 2, patience=patience)

    def hear(self, *commands: Command, step: int) -> None:
        self.step = step
        for command in commands:
            self.agreement.hear(command, lambda: self.step)

    def settle(self) -> None:
        self.agreement.settle()

    def due(self, step: int) -> list[Command]:
        found = self.agreement.due(step, beat=lambda: pytest.fail("it waits"))
        assert not any(heard.refusal for heard in found)
        return [heard.command for heard in found]


@pytest.fixture
def ranks(tmp_path: Path) -> tuple[Rank, Rank]:
    return Rank(tmp_path, 0), Rank(tmp_path, 1)


LR, WD = (Command(name="set", control=name, value=0.1) for name in ("lr", "weight_decay"))


def settle(*ranks: Rank) -> None:
    for rank in (*ranks, *ranks):
        rank.settle()


def test_the_latest_boundary_that_a_rank_can_still_make_is_taken(ranks: tuple[Rank, Rank]) -> None:
    first, second = ranks
    first.hear(LR, step=4)
    second.hear(LR, step=5)
    settle(*ranks)
    assert first.due(5) == []
    assert first.agreement.leave(5)
    assert first.due(6) == second.due(6) == [LR]
    assert first.agreement.leave(6)
    assert not first.agreement.waiting


def test_a_rank_stays_until_the_others_have_answered(ranks: tuple[Rank, Rank]) -> None:
    first, second = ranks
    first.hear(LR, step=4)
    first.settle()
    waited: list[int] = []

    def beat() -> None:
        waited.append(1)
        second.hear(LR, step=5)
        settle(second, first)

    assert not first.agreement.leave(5)
    assert first.agreement.due(5, beat=beat) == []
    assert waited == [1]
    assert first.due(6) == second.due(6) == [LR]


def test_what_is_heard_at_a_boundary_is_obeyed_there_until_it_is_left(
    ranks: tuple[Rank, Rank],
) -> None:
    first, second = ranks
    for rank in ranks:
        assert rank.due(5) == []
        rank.hear(LR, step=5)
    settle(*ranks)
    assert not first.agreement.leave(5)
    assert first.due(5) == second.due(5) == [LR]
    assert first.agreement.leave(5)
    first.hear(WD, step=5)
    second.hear(WD, step=5)
    settle(*ranks)
    assert first.due(5) == []
    assert first.due(6) == [WD]


def test_commands_keep_their_order_and_lie_at_different_steps(ranks: tuple[Rank, Rank]) -> None:
    first, second = ranks
    first.hear(LR, step=4)
    second.hear(LR, WD, step=7)
    first.hear(WD, step=9)
    settle(*ranks)
    for rank in ranks:
        assert [rank.due(step) for step in (7, 8, 9, 10)] == [[], [LR], [], [WD]]


def test_a_rank_that_has_ended_is_not_waited_for(ranks: tuple[Rank, Rank]) -> None:
    first, second = ranks
    second.agreement.end()
    first.hear(LR, step=4)
    first.settle()
    assert first.due(5) == [LR]


def test_a_rank_that_is_silent_makes_all_refuse(tmp_path: Path) -> None:
    first, second = Rank(tmp_path, 0, patience=0.0), Rank(tmp_path, 1)
    first.hear(LR, step=4)
    first.settle()
    second.hear(LR, step=6)  # too late
    second.settle()
    for rank, step in ((first, 5), (second, 7)):
        (heard,) = rank.agreement.due(step, beat=lambda: pytest.fail("it waits"))
        assert heard.refusal == (
            "Expected all ranks to answer within 0 s, but rank 1 does not: nothing was changed."
        )


def test_ranks_that_do_not_train_together_do_not_wait_for_each_other(
    ranks: tuple[Rank, Rank],
) -> None:
    first, second = ranks
    first.hear(LR, step=4)
    second.hear(LR, step=5 + TOGETHER)
    settle(*ranks)
    assert first.due(5) == [LR]
    assert second.due(6 + TOGETHER) == [LR]


@pytest.mark.parametrize("name", ["resume", "stop"])
def test_a_paused_rank_goes_on_to_the_boundary_at_which_all_resume_or_stop(
    ranks: tuple[Rank, Rank], name: str
) -> None:
    first, second = ranks
    command = Command(name=name)  # type: ignore[arg-type]
    assert first.due(5) == []  # it waits here, while the other one is in its next step
    first.hear(LR, command, step=5)
    second.hear(LR, command, step=5)
    assert not first.agreement.releases
    settle(*ranks)
    assert first.due(5) == []
    assert first.agreement.releases
    assert first.due(6) == second.due(6) == [LR, command]
