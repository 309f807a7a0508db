"""Turns blocks of rows into statements; keeps what each group needs to know to go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from inspector.quantities import SeriesKey
from inspector.store.chunks import Block, Statement, chunk_statement, merge
from inspector.store.layout import CHUNK_ROWS, I64
from inspector.store.rollup import Pyramid

_KEYS_PER_INSERT = 5000
_REMEMBERED = 16


class Group:
    """The columns of a group, the number of rows it has, and the open end of its pyramid."""

    def __init__(
        self, name: str, columns: dict[SeriesKey, int], row: int, last: int, pyramid: Pyramid
    ) -> None:
        self.name = name
        self.columns = columns
        self.row = row
        self.last = last
        self.pyramid = pyramid
        self._places: list[tuple[Sequence[SeriesKey], slice | I64]] = []

    @classmethod
    def empty(cls, name: str) -> Group:
        return cls(name, {}, 0, -1, Pyramid(name))

    def encode(self, blocks: list[Block]) -> list[Statement]:
        statements: list[Statement] = []
        for part in _parts(blocks):
            places = []
            for block in part:
                place, new = self._place(block.keys)
                places.append(place)
                statements += new
            steps, rows = merge(part, places, len(self.columns))
            statements.append(
                chunk_statement(self.name, self.row, steps, rows, part[0].start, part[-1].stop)
            )
            statements += self.pyramid.add(steps, rows)
            self.row += len(rows)
            self.last = int(steps[-1])
        return statements

    def _place(self, keys: Sequence[SeriesKey]) -> tuple[slice | I64, list[Statement]]:
        """Where the keys' values go, and the statements that add the new ones among them."""
        for known, place in self._places:
            if known is keys:
                return place, []
        new = [key for key in dict.fromkeys(keys) if key not in self.columns]
        start = len(self.columns)
        self.columns.update({key: start + at for at, key in enumerate(new)})
        columns: I64 = np.array([self.columns[key] for key in keys], np.int64)
        ordered = np.array_equal(columns, np.arange(len(columns)))
        place = slice(0, len(columns)) if ordered else columns
        self._places = [*self._places[1 - _REMEMBERED :], (keys, place)]
        return place, list(self._series_statements(start, new))

    def _series_statements(self, start: int, keys: list[SeriesKey]) -> Iterator[Statement]:
        for at in range(0, len(keys), _KEYS_PER_INSERT):
            part = keys[at : at + _KEYS_PER_INSERT]
            values: list[object] = []
            for offset, key in enumerate(part):
                values += (self.name, start + at + offset, key.quantity, key.scope, key.subject)
            places = ",".join(["(?,?,?,?,?)"] * len(part))
            yield f"INSERT INTO series(grp, col, quantity, scope, subject) VALUES {places}", values


def _parts(blocks: list[Block]) -> Iterator[list[Block]]:
    """Consecutive blocks that fit into one chunk together."""
    part: list[Block] = []
    rows = 0
    for block in blocks:
        if part and rows + block.count > CHUNK_ROWS:
            yield part
            part, rows = [], 0
        part.append(block)
        rows += block.count
    if part:
        yield part


class Encoder:
    """All groups of one rank."""

    def __init__(self, groups: dict[str, Group]) -> None:
        self.groups = groups

    def encode(self, blocks: list[Block]) -> list[Statement]:
        by_group: dict[str, list[Block]] = {}
        for block in blocks:
            by_group.setdefault(block.group, []).append(block)
        statements: list[Statement] = []
        for name, own in by_group.items():
            group = self.groups.get(name)
            if group is None:
                group = self.groups[name] = Group.empty(name)
            statements += group.encode(own)
        return statements
