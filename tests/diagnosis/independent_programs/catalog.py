"""The list of the second set, and its halves."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable

from labelled_programs.catalog import Program, Train
from labelled_programs.variation import Variation

_programs: list[Program] = []


def faulty(code: str) -> Callable[[Train], Train]:
    """The decorated function trains a program with this fault, or its repaired twin."""

    def accept(train: Train) -> Train:
        _programs.append(Program(train.__name__, code, train))
        return train

    return accept


def healthy(train: Callable[[Variation], None]) -> Callable[[Variation], None]:
    """The decorated function trains a program with which nothing is wrong."""
    _programs.append(Program(train.__name__, None, lambda variation, _broken: train(variation)))
    return train


def parts() -> dict[str, list[Program]]:
    """The two halves, ``tuning`` and ``held_out``.

    Within each code the programs are ordered by a hash of their names and dealt alternately, so
    that nobody chose which program is where, and each half has its share of every code.
    """
    by_code: dict[str, list[Program]] = defaultdict(list)
    for program in _programs:
        by_code[program.code or ""].append(program)
    halves: dict[str, list[Program]] = {"tuning": [], "held_out": []}
    names = list(halves)
    for turn, code in enumerate(sorted(by_code)):
        ordered = sorted(by_code[code], key=lambda p: hashlib.sha256(p.name.encode()).digest())
        for place, program in enumerate(ordered):
            halves[names[(place + turn) % 2]].append(program)
    return halves
