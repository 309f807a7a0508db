"""The bounded queue in front of the writer thread: rows are copied in, whole blocks taken out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from inspector.quantities import SeriesKey
from inspector.store.chunks import Block, Statement, steady
from inspector.store.layout import CHUNK_ROWS

SLOW = "the disk could not keep up"
MOST_STATEMENTS = 4096
ORDER = "steps of a group must rise"


class _Lane:
    """Where the rows of one group come in."""

    __slots__ = ("block", "last")

    def __init__(self, last: int) -> None:
        self.block: Block | None = None
        self.last = last


class Intake:
    """What waits for the writer thread. Every method may be called from any thread.

    Attributes:
        wake: set when there is something that should not wait for the next beat.
        hurry: somebody waits for everything to be committed.
        queued: rows taken in and not yet committed (or lost).
        dropped: rows thrown away so far.
        trouble: a sentence about what is wrong with the disk at the moment, else empty.
    """

    def __init__(self, last_steps: Mapping[str, int], queue_rows: int) -> None:
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.hurry = False
        self.queued = 0
        self.dropped = 0
        self.trouble = ""
        self._queue_rows = queue_rows
        self._crowd = queue_rows // 4  # rows from which on the thread is woken for each block
        self._lanes = {group: _Lane(last) for group, last in last_steps.items()}
        self._full: list[Block] = []
        self._statements: list[Statement] = []
        self._marks: list[threading.Event] = []
        self._unreported = 0
        self._reason = SLOW

    def append(
        self,
        group: str,
        step: int,
        keys: Sequence[SeriesKey],
        values: npt.NDArray[np.float32] | Sequence[float],
    ) -> None:
        """One row; see ``Writer.append``."""
        with self.lock:
            lane = self._lanes.get(group)
            if lane is None:
                lane = self._lanes[group] = _Lane(-1)
            if self.queued >= self._queue_rows or step <= lane.last:
                self._drop(1, ORDER if step <= lane.last else self.trouble or SLOW)
                return
            block = lane.block
            if block is None or block.keys is not keys:
                block = self._block(lane, group, keys)
            if len(values) != block.width:
                raise ValueError(
                    f"Expected {block.width} values, one for each key, but got {len(values)}."
                )
            at = block.count
            block.values[at] = values
            block.steps[at] = step
            block.stop = steady()
            block.count = at + 1
            lane.last = step
            self.queued += 1
            wake = self.queued == 1
            if at + 1 == CHUNK_ROWS:
                self._full.append(block)
                lane.block = None
                wake |= self.queued > self._crowd
        if wake:
            self.wake.set()

    def extend(
        self,
        group: str,
        first: int,
        keys: Sequence[SeriesKey],
        values: npt.NDArray[np.float32],
    ) -> None:
        """Rows of consecutive steps; see ``Writer.extend``."""
        with self.lock:
            lane = self._lanes.get(group)
            if lane is None:
                lane = self._lanes[group] = _Lane(-1)
            room = max(0, self._queue_rows - self.queued)
            if first <= lane.last or room < len(values):
                taken = 0 if first <= lane.last else room
                self._drop(len(values) - taken, ORDER if first <= lane.last else SLOW)
                values = values[:taken]
            wake = not self.queued or self.queued + len(values) > self._crowd
            at = 0
            while at < len(values):
                block = lane.block
                if block is None or block.keys is not keys:
                    block = self._block(lane, group, keys)
                begin = block.count
                count = min(CHUNK_ROWS - begin, len(values) - at)
                block.values[begin : begin + count] = values[at : at + count]
                block.steps[begin : begin + count] = range(first + at, first + at + count)
                block.stop = steady()
                block.count += count
                lane.last = first + at + count - 1
                self.queued += count
                at += count
                if block.count == CHUNK_ROWS:
                    self._full.append(block)
                    lane.block = None
        if wake:
            self.wake.set()

    def _block(self, lane: _Lane, group: str, keys: Sequence[SeriesKey]) -> Block:
        keys = keys if isinstance(keys, tuple) else tuple(keys)
        block = lane.block
        if block is not None:
            if block.keys == keys:
                block.keys = keys
                return block
            if block.count:
                self._full.append(block)
        lane.block = Block(group, keys)
        return lane.block

    def add(self, statement: Statement, *, droppable: bool = False) -> None:
        """Something beside rows; what is ``droppable`` is dropped when very much of it waits."""
        with self.lock:
            if droppable and len(self._statements) >= MOST_STATEMENTS:
                self._drop(1, self.trouble or SLOW)
                return
            self._statements.append(statement)
        self.wake.set()

    def mark(self) -> threading.Event:
        """An event that is set when all that came before it is committed."""
        mark = threading.Event()
        with self.lock:
            self._marks.append(mark)
            self.hurry = True
        self.wake.set()
        return mark

    def take(self, everything: bool) -> tuple[list[Block], list[Statement], list[threading.Event]]:
        """Full blocks and other statements; with ``everything`` also open blocks and marks."""
        with self.lock:
            blocks, self._full = self._full, []
            statements, self._statements = self._statements, []
            marks: list[threading.Event] = []
            if everything:
                self.hurry = False
                marks, self._marks = self._marks, []
                for lane in self._lanes.values():
                    if lane.block is not None and lane.block.count:
                        blocks.append(lane.block)
                        lane.block = None
        return blocks, statements, marks

    def committed(self, rows: int) -> None:
        with self.lock:
            self.queued -= rows

    def lose(self, rows: int, reason: str) -> None:
        """Rows that had been taken in will never be committed."""
        with self.lock:
            self.queued -= rows
            self._drop(rows, reason)

    def lose_all(self, reason: str) -> None:
        """Recording has ended: what waits is lost, and so is what comes."""
        with self.lock:
            self.trouble = reason
            self._drop(self.queued, reason)
            self.queued = self._queue_rows = 0

    def _drop(self, rows: int, reason: str) -> None:
        self.dropped += rows
        self._unreported += rows
        self._reason = reason

    def report(self) -> tuple[int, int, str] | None:
        """The newest step, the rows dropped since the last report, and why; None without any."""
        with self.lock:
            rows, self._unreported = self._unreported, 0
            step = max((lane.last for lane in self._lanes.values()), default=0)
        return (max(0, step), rows, self._reason) if rows else None

    def waiting(self) -> bool:
        return bool(self.queued or self._statements or self._marks)
