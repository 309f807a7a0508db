"""The list that programs join by decorator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labelled_programs.variation import Variation

Train = Callable[[Variation, bool], None]


@dataclass(frozen=True)
class Program:
    """A training program.

    ``train(variation, broken)`` trains it; ``code`` is the finding that its broken form
    deserves, or None for a healthy program (which is never broken).
    """

    name: str
    code: str | None
    train: Train


_programs: dict[str, Program] = {}


def faulty(code: str) -> Callable[[Train], Train]:
    """The decorated function trains a program with this fault, or its repaired twin."""

    def accept(train: Train) -> Train:
        _programs[train.__name__] = Program(train.__name__, code, train)
        return train

    return accept


def healthy(train: Callable[[Variation], None]) -> Callable[[Variation], None]:
    """The decorated function trains a program with which nothing is wrong."""
    name = train.__name__
    _programs[name] = Program(name, None, lambda variation, _broken: train(variation))
    return train


def all_programs() -> list[Program]:
    return list(_programs.values())


def faulty_programs() -> list[Program]:
    return [program for program in _programs.values() if program.code is not None]


def healthy_programs() -> list[Program]:
    return [program for program in _programs.values() if program.code is None]
