"""Commands take effect at the same step on every rank; real processes that speak gloo."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from inspector.commands import Command
from inspector.events import CommandApplied, CommandRefused, Paused, Resumed
from inspector.store.control import ControlWriter
from inspector.store.layout import AGREEMENT_FILE
from inspector.store.reader import Run

PROGRAM = Path(__file__).with_name("rank_program.py")
RANKS = (0, 1)


@contextlib.contextmanager
def job(folder: Path) -> Iterator[tuple[Run, Callable[[Command], None]]]:
    """Two ranks that train; gives their run, and what sends commands to it."""
    ranks = [
        subprocess.Popen([sys.executable, str(PROGRAM), str(rank), str(folder)]) for rank in RANKS
    ]
    try:
        path = folder / "runs" / "job"
        until(lambda: (path / "rank00001.db").exists() and (path / "run.json").exists())
        control = ControlWriter(path)
        yield Run(path), lambda command: void(control.send(command))
        control.send(Command(name="stop"))
        control.close()
        assert [rank.wait(60) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def void(_: Any) -> None:
    return None


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


def answers(run: Run, rank: int) -> list[tuple[int, str, Any]]:
    """Step, name and value in force, or refusal, of every command to the rank."""
    return [
        (stored.step, event.name, getattr(event, "effective", "refused"))
        for stored in run.events(rank=rank)
        if isinstance(event := stored.event, CommandApplied | CommandRefused)
    ]


def rates(run: Run, rank: int) -> list[tuple[int, float]]:
    """The steps from which on the learning rate was another one."""
    series = run.series("lr", rank=rank, max_points=10**9)
    values = series.values.tolist()
    return [
        (int(step), value)
        for step, value, before in zip(series.steps, values, [None, *values], strict=False)
        if value != before
    ]


def until_both(run: Run, count: int) -> None:
    until(lambda: all(len(answers(run, rank)) >= count for rank in RANKS))


def steps_of(run: Run, kind: type) -> list[list[int]]:
    return [
        [stored.step for stored in run.events(rank=rank) if isinstance(stored.event, kind)]
        for rank in RANKS
    ]


def test_every_command_takes_effect_at_one_step_of_all_ranks(tmp_path: Path) -> None:
    with job(tmp_path) as (run, send):
        until(lambda: all(len(run.series("loss", rank=rank).steps) > 1 for rank in RANKS))
        assert not (run.path / AGREEMENT_FILE).exists()  # nothing is exchanged without a command

        for number in range(1, 6):
            send(Command(name="set", control="lr", value=0.05 / (number + 1)))
            send(Command(name="set", control="momentum", value=0.8 - number / 100))
            until_both(run, 2 * number)
        drawn = {"action": "reinitialize", "module": "module.3"}
        send(Command(name="remedy", value=drawn))
        send(Command(name="fault", value={"action": "inject", "fault": "random"}, id="sigmoid"))

        send(Command(name="pause"))
        until_both(run, 13)
        send(Command(name="set", control="lr", value=0.001))
        send(Command(name="run_steps", value=3))
        until(lambda: [len(steps) for steps in steps_of(run, Paused)] == [2, 2])
        send(Command(name="resume"))
        until_both(run, 16)

    first, second = (answers(run, rank) for rank in RANKS)
    assert first == second
    assert [name for _, name, _ in first] == [
        *["lr", "momentum"] * 5, "reinitialize module.3", "fault: inject",
        "pause", "lr", "run_steps", "resume", "stop",
    ]  # fmt: skip
    assert rates(run, 0) == rates(run, 1)
    assert {step for step, _ in rates(run, 0)} >= {s for s, name, _ in first if name == "lr"}

    paused, resumed = steps_of(run, Paused), steps_of(run, Resumed)
    assert paused[0] == paused[1]
    assert resumed[0] == resumed[1]
    assert paused[0] == [resumed[0][0], resumed[0][0] + 3]  # obeyed at once while all wait

    states = [torch.load(tmp_path / f"weights-{r}.pt", weights_only=True) for r in RANKS]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
