"""Findings that may have a beginning say it, also when that is the first step."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from inspector.diagnosis.finding import Finding
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views import findings as view


@pytest.mark.parametrize(
    ("code", "step", "place"),
    [
        ("dead_relu", 0, "module act · since the first step"),
        ("dead_relu", 40, "module act · since step 40"),
        ("double_softmax", 0, "module act"),  # a mistake in the program never began
    ],
)
def test_a_card_says_since_when(code: str, step: int, place: str) -> None:
    found = Finding(code=code, level="warning", title="…", confidence=0.9, module="act", step=step)
    assert view.cards([found])[0].place == place


@pytest.mark.parametrize(("zeros", "step"), [([1.0] * 6, 0), ([0.5, 0.4, 1.0, 1.0, 1.0, 1.0], 20)])
def test_units_that_died_are_dated_by_their_share_of_zeros(
    tmp_path: Path, zeros: list[float], step: int
) -> None:
    path = create_run(tmp_path, "run", {"kind": "watched"})
    module = {"path": "act", "type": "ReLU", "parameters": 0}
    with closing(Writer(path)) as writer:
        writer.document("modules", 0, {"modules": [module]})
        for at, share in enumerate(zeros):
            writer.append("scalar", 10 * at, (SeriesKey("loss"),), [1.0])
            writer.append(
                "module", 10 * at, (SeriesKey("activation_zeros", "module", "act"),), [share]
            )
        writer.heartbeat(60, "finished")
    with Run(path) as run:
        found = [one for one in run.findings() if one.code == "dead_relu"]
    assert [one.step for one in found] == [step]
