"""At which step a command takes effect where several ranks train together.

Their weights stay equal only if all of them change at the same step, and each hears of a command
at a moment of its own. So each answers, in ``agreed.db``, with the first boundary at which it can
still obey: the one where it waits, or the next. The latest of the answers is the step. No rank
leaves the boundary that it has named, or one after it, before all have answered: so none can be
past the step that they agree on. The answers come from the thread that listens for commands, also
while the training thread waits inside a collective operation for others: nobody waits in a circle.

As long as there is no command nothing is written, read or sent. A rank that has ended no longer
counts; a command to which a rank does not answer in time is refused on all of them. Ranks that lie
further apart than any that train one model do not wait for each other: each obeys as it can.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inspector.commands import Command
from inspector.store.database import open_shared
from inspector.store.layout import AGREEMENT_FILE

PATIENCE_SECONDS = 30.0
TOGETHER = 256
"""Steps by which ranks that wait for each other's gradients may lie apart; a CUDA host runs ahead
of its device, by fewer steps than the thousand operations that it queues."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answer(uid TEXT, rank INTEGER, step INTEGER, PRIMARY KEY(uid, rank));
CREATE TABLE IF NOT EXISTS ended(rank INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS refusal(uid TEXT PRIMARY KEY, reason TEXT);
"""
_RELEASING = ("resume", "run_steps", "stop")


@dataclass(slots=True)
class Heard:
    """A command on its way.

    Attributes:
        earliest: the first boundary at which this rank can obey, in completed steps.
        step: the boundary at which all ranks obey; None until they agree.
        refusal: why they never will.
    """

    command: Command
    earliest: int
    since: float
    answered: bool = False
    step: int | None = None
    refusal: str = ""

    @property
    def settled(self) -> bool:
        return self.step is not None or bool(self.refusal)

    def is_due(self, step: int) -> bool:
        """Whether it is to be obeyed, or refused, at the boundary after ``step`` steps."""
        return bool(self.refusal) or (self.step is not None and self.step <= step)


class Agreement:
    """One rank's part; one thread listens (:meth:`hear`, :meth:`settle`), another one trains."""

    def __init__(
        self, run_dir: str | Path, rank: int, ranks: int, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """``patience``: seconds after which a command is refused that a rank does not answer."""
        self._path = Path(run_dir) / AGREEMENT_FILE
        self._rank, self._ranks, self._patience = rank, ranks, patience
        self._heard: list[Heard] = []
        self._boundary: int | None = None  # at which the training thread takes commands
        self._changed = threading.Condition()
        self._db: sqlite3.Connection | None = None

    # ------------------------------------------------------------ the listening thread

    def hear(self, command: Command, now: Callable[[], int]) -> None:
        """Takes a command.

        Args:
            now: gives the step that runs, and makes the training thread look at every boundary
                that follows.
        """
        with self._changed:
            running = now()
            earliest = running + 1 if self._boundary is None else self._boundary
            self._heard.append(Heard(command, earliest, time.monotonic()))
            self._changed.notify_all()

    @property
    def unsettled(self) -> bool:
        """Whether :meth:`settle` has anything to do."""
        with self._changed:
            return any(not heard.settled for heard in self._heard)

    def settle(self) -> None:
        """Answers what was heard, and looks for the answers of the others."""
        with self._changed:
            open_ones = [heard for heard in self._heard if not heard.settled]
        if not open_ones:
            return
        try:
            found = self._exchange(open_ones)
        except sqlite3.Error as error:  # another rank writes at this moment, or the disk fails
            found = {
                heard.command.id: (None, f"The ranks could not agree on a step: {error}.")
                for heard in open_ones
                if time.monotonic() - heard.since > 2 * self._patience
            }
        with self._changed:
            for heard in open_ones:
                heard.step, heard.refusal = found.get(heard.command.id, (None, ""))
            self._changed.notify_all()

    def _exchange(self, open_ones: list[Heard]) -> dict[str, tuple[int | None, str]]:
        """Steps and refusals by the ids of commands; those that are still open are missing."""
        db = self._open()
        new = [heard for heard in open_ones if not heard.answered]
        rows = [(heard.command.id, self._rank, heard.earliest) for heard in new]
        if rows:
            with _transaction(db):
                db.executemany("INSERT OR IGNORE INTO answer VALUES (?,?,?)", rows)
            for heard in new:
                heard.answered = True
        late = [h for h in open_ones if time.monotonic() - h.since > self._patience]
        found: dict[str, tuple[int | None, str]] = {}
        # A refusal is written only while an answer is missing, so both are read at one moment.
        with _transaction(db, "IMMEDIATE" if late else "DEFERRED"):
            ended = {rank for (rank,) in db.execute("SELECT rank FROM ended")}
            for heard in open_ones:
                uid = heard.command.id
                refused = db.execute("SELECT reason FROM refusal WHERE uid = ?", (uid,)).fetchone()
                answers = dict(
                    db.execute("SELECT rank, step FROM answer WHERE uid = ?", (uid,)).fetchall()
                )
                missing = sorted(set(range(self._ranks)) - set(answers) - ended)
                if refused is None and missing and heard in late:
                    refused = (_silent(missing, self._patience),)
                    db.execute("INSERT INTO refusal VALUES (?,?)", (uid, *refused))
                if refused is not None:
                    found[uid] = None, refused[0]
                elif not missing:
                    apart = max(answers.values()) - min(answers.values()) > TOGETHER
                    found[uid] = heard.earliest if apart else max(answers.values()), ""
        return found

    # ------------------------------------------------------------ the training thread

    @property
    def waiting(self) -> bool:
        """Whether commands were heard that are not obeyed yet."""
        with self._changed:
            return bool(self._heard)

    def due(self, step: int, *, beat: Callable[[], None]) -> list[Heard]:
        """What is to be obeyed, or refused, at the boundary after ``step`` completed steps.

        Waits until everything is settled that could be due; ``beat`` is called meanwhile, at least
        every half second. From now on what is heard counts for this boundary, until :meth:`leave`.
        """
        with self._changed:
            self._boundary = step
        while True:
            with self._changed:
                if not any(h.earliest <= step and not h.settled for h in self._heard):
                    return self._take(step)
                self._changed.wait(0.5)
            beat()

    def _take(self, step: int) -> list[Heard]:
        """In the order in which they were sent: none overtakes one that is not due."""
        taken: list[Heard] = []
        while self._heard and self._heard[0].is_due(step):
            taken.append(self._heard.pop(0))
        return taken

    @property
    def releases(self) -> bool:
        """Whether what was agreed on for a later boundary lets a paused training go on."""
        with self._changed:
            return any(h.step is not None and h.command.name in _RELEASING for h in self._heard)

    def leave(self, step: int) -> bool:
        """Ends taking commands at a boundary; False while one of them may still be due there."""
        with self._changed:
            open_here = any(h.earliest <= step and not h.settled for h in self._heard)
            if open_here or (self._heard and self._heard[0].is_due(step)):
                return False
            self._boundary = None
            return True

    def end(self) -> None:
        """This rank makes no further steps: the others need not wait for it."""
        with (
            contextlib.suppress(sqlite3.Error, OSError),
            contextlib.closing(open_shared(self._path, _SCHEMA, timeout=5)) as db,
        ):
            db.execute("INSERT OR IGNORE INTO ended VALUES (?)", (self._rank,))

    # ------------------------------------------------------------ the file

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = open_shared(self._path, _SCHEMA, timeout=1)
        return self._db

    def close(self) -> None:
        """Closes the file; called by the listening thread."""
        if self._db is not None:
            self._db.close()
            self._db = None


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _silent(missing: list[int], seconds: float) -> str:
    names = ", ".join(map(str, missing))
    who = f"rank {names} does" if len(missing) == 1 else f"ranks {names} do"
    return f"Expected all ranks to answer within {seconds:g} s, but {who} not: nothing was changed."
