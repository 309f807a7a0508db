"""Findings of a distributed run: every rank is looked at, and the finding says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.diagnosis.command import diagnose_command
from inspector.diagnosis.findings import diagnose
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import open_run
from inspector.store.writer import Writer
from inspector.views import findings as view

KEYS = (SeriesKey("loss"), SeriesKey("total_update_ratio"), SeriesKey("lr"))


def recorded(folder: Path, growth: list[float]) -> Path:
    path = create_run(folder, "job", {"kind": "watched", "config": {}})
    for rank, factor in enumerate(growth):
        writer = Writer(path, rank=rank)
        for step in range(30):
            writer.append("scalar", step, KEYS, [2.3 * factor**step, 0.5, 1.0])
        writer.close()
    return path


@pytest.mark.parametrize(
    ("growth", "ranks", "place"),
    [([0.9, 3.0, 0.9], (1,), "rank 1"), ([3.0, 3.0], (0, 1), "ranks 0, 1")],
)
def test_a_finding_names_the_ranks_that_show_it(
    growth: list[float], ranks: tuple[int, ...], place: str, tmp_path: Path
) -> None:
    path = recorded(tmp_path, growth)
    with open_run(path) as run:
        (found,) = (one for one in diagnose(run) if one.code == "lr_too_high")
    assert tuple(sorted(found.ranks)) == ranks
    (card,) = view.cards([found])
    assert card.place.endswith(place)
    lines: list[str] = []
    assert diagnose_command(path, lines.append) == 1
    assert any(line.strip().startswith("where:") and place in line for line in lines)


def test_a_run_of_one_process_names_no_rank(tmp_path: Path) -> None:
    with open_run(recorded(tmp_path, [3.0])) as run:
        assert {found.ranks for found in diagnose(run)} == {()}
