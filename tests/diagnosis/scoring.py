"""Trains labelled programs through ``watch()``, diagnoses them, and counts what was right."""

from __future__ import annotations

import functools
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from labelled_programs import Program
from labelled_programs.variation import Variation

import inspector
from inspector.diagnosis import Finding, diagnose


@dataclass
class Result:
    """What the diagnosis said about one training."""

    program: str
    code: str | None
    broken: bool
    seed: int
    findings: list[Finding] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def codes(self) -> list[str]:
        """Codes in order, each once."""
        return list(dict.fromkeys(finding.code for finding in self.findings))

    @property
    def alarmed(self) -> bool:
        """Whether anything of level warning or above was found."""
        return any(finding.level != "note" for finding in self.findings)


@dataclass
class Score:
    """Shares over many results."""

    faulty: int
    first: int
    among_three: int
    sound: int
    alarmed: int

    @property
    def text(self) -> str:
        return (
            f"true cause first {self.first}/{self.faulty} ({self.first / self.faulty:.1%}), "
            f"among three {self.among_three}/{self.faulty} ({self.among_three / self.faulty:.1%}), "
            f"alarms on sound programs {self.alarmed}/{self.sound} "
            f"({self.alarmed / self.sound:.1%})"
        )


def trained(program: Program, seed: int, broken: bool, run_dir: Path) -> tuple[Path, str]:
    """Trains a program; gives the run's directory and the exception that ended it, or ''."""
    made: list[Any] = []

    def watch(model: Any, optimizer: Any, **arguments: Any) -> Any:
        name = f"{program.name}-{seed}-{'broken' if broken else 'sound'}"
        made.append(inspector.watch(model, optimizer, run_dir=run_dir, name=name, **arguments))
        return made[0]

    error = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program.train(Variation(seed, watch), broken)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    if not made:
        raise RuntimeError(f"{program.name} with seed {seed} never reached watch(): {error}")
    return made[0].run_path, error


def evaluated(program: Program, seed: int, broken: bool, run_dir: Path | None = None) -> Result:
    """Trains a program in a fresh directory and diagnoses the run."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as fresh:
        path, error = trained(program, seed, broken, run_dir or Path(fresh))
        with inspector.open_run(path) as run:
            findings = diagnose(run)
    return Result(
        program.name, program.code if broken else None, broken, seed, findings, error,
        time.perf_counter() - began,
    )  # fmt: skip


def seed_of(program: Program, base: int) -> int:
    """Each program has its own seed, so that programs do not all vary in the same way."""
    mixed = functools.reduce(lambda a, c: (a * 31 + ord(c)) % 1_000_003, program.name, 7)
    return base * 1_000_003 + mixed


def all_results(programs: Iterable[Program], bases: Iterable[int]) -> list[Result]:
    """Every program once for each base seed: broken and repaired, or as it is."""
    torch.set_num_threads(1)
    made = []
    for base in bases:
        for program in programs:
            forms = (True, False) if program.code is not None else (False,)
            made += [evaluated(program, seed_of(program, base), broken) for broken in forms]
    return made


def score(results: Iterable[Result]) -> Score:
    listed = list(results)
    faulty = [result for result in listed if result.code is not None]
    sound = [result for result in listed if result.code is None]
    return Score(
        len(faulty),
        sum(result.codes[:1] == [result.code] for result in faulty),
        sum(result.code in result.codes[:3] for result in faulty),
        len(sound),
        sum(result.alarmed for result in sound),
    )
