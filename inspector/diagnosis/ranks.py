"""A distributed run, rank by rank: each is diagnosed by itself, equal findings are told once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from inspector.diagnosis.finding import Finding
from inspector.events import StoredEvent

MOST = 16
"""So many ranks are looked at; they see the same model, and differ in their data only."""


class OneRank:
    """One rank of a run (``inspector.store.reader.Run``), as the rules read it."""

    def __init__(self, run: Any, rank: int) -> None:
        self._run = run
        self.rank = rank

    def series(self, quantity: str, subject: str = "", *, max_points: int = 2000) -> Any:
        return self._run.series(quantity, subject, max_points=max_points, rank=self.rank)

    def document(self, kind: str, step: int | None = None) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._run.document(kind, step, rank=self.rank)
        return found

    def events(self, after: int = 0) -> list[StoredEvent]:
        found: list[StoredEvent] = self._run.events(after, rank=self.rank)
        return found


def ranks_of(run: Any) -> list[int]:
    """The ranks that are diagnosed; one for a run that is not distributed."""
    return list(getattr(run, "ranks", ()))[:MOST] or [0]


def named(ranks: Iterable[int]) -> str:
    """``rank 1``, or ``ranks 0, 2``."""
    listed = sorted(ranks)
    return f"rank{'s' if len(listed) > 1 else ''} {', '.join(map(str, listed))}"


def together(found: Iterable[tuple[int, Finding]]) -> list[Finding]:
    """Findings that ranks share become one, told by the rank that is surest, with all ranks.

    Where one rank is warned of something, the notes of others about it are left out.
    """
    merged: dict[tuple[str, str | None], tuple[Finding, list[int]]] = {}
    surest_first = sorted(found, key=lambda pair: (pair[1].level == "note", -pair[1].confidence))
    for rank, finding in surest_first:
        first, ranks = merged.setdefault((finding.code, finding.module), (finding, []))
        if (first.level == "note") == (finding.level == "note"):
            ranks.append(rank)
    return [
        dataclasses.replace(finding, ranks=tuple(dict.fromkeys(ranks)))
        for finding, ranks in merged.values()
    ]
