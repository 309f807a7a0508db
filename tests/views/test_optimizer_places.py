"""Names and values of optimizers and parameter groups, as a run recorded them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.charts.boards import overview, settings
from inspector.charts.specs import LineChart
from inspector.events import CommandApplied, StoredEvent
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views.controls import in_force, in_parts
from inspector.views.optimizers import in_words, labels, places, value


def group(title: str, **settings: float) -> dict[str, Any]:
    return {"title": title, "parameters": 2, **settings}


OPTIMIZERS = [
    {"type": "Adam", "title": "body · Adam", "groups": [group("body · Adam", lr=0.2)]},
    {
        "type": "SGD", "title": "head · SGD",
        "groups": [group("head · SGD · group 0", lr=0.1, momentum=0.9),
                   group("head · SGD · group 1", lr=0.3)],
    },
]  # fmt: skip


def written(folder: Path, *, at: int, optimizers: list[dict[str, Any]] = OPTIMIZERS) -> Run:
    """Ten steps; the document is of step ``at``."""
    path = create_run(folder, "run", {"kind": "watched"})
    keys = tuple(map(SeriesKey, ("lr", "lr/optimizer 1", "lr/optimizer 1 group 1", "momentum/x")))
    with closing(Writer(path)) as writer:
        for step in range(10):
            writer.append("scalar", step, keys, np.array([0.2, 0.5, 0.3, 1.0], np.float32))
        writer.document("optimizers", at, {"step": at, "optimizers": optimizers})
    return Run(path)


def test_every_optimizer_and_group_has_a_place_with_its_value(tmp_path: Path) -> None:
    with written(tmp_path, at=3) as run:
        found = {place.target: place for place in places(run)}
        assert {target: place.title for target, place in found.items()} == {
            "": "All optimizers",
            "0": "body · Adam",
            "1": "head · SGD",
            "1/0": "head · SGD · group 0",
            "1/1": "head · SGD · group 1",
        }
        assert value(run, found["1/0"], "lr") == pytest.approx(0.5)  # recorded since
        assert value(run, found["1/0"], "momentum") == 0.9
        assert value(run, found["0"], "weight_decay") is None
        assert in_words(run, "lr", places(run), 1) == ["body · Adam 0.2", "1 more"]


def test_what_a_command_has_just_set_counts_before_the_next_step(tmp_path: Path) -> None:
    with written(tmp_path, at=10) as run:
        found = {place.target: place for place in places(run)}
        assert value(run, found["1"], "lr") == 0.1


def test_one_optimizer_with_one_group_has_no_places(tmp_path: Path) -> None:
    with written(tmp_path, at=0, optimizers=OPTIMIZERS[:1]) as run:
        assert places(run) == ()
        assert labels(run) == {}


def test_rates_share_a_chart_under_their_names_and_other_settings_have_none(
    tmp_path: Path,
) -> None:
    with written(tmp_path, at=0) as run:
        charts = overview(run.keys(), labels(run))
    (rates,) = (chart for chart in charts if chart.title == "Learning rate")
    assert isinstance(rates, LineChart)
    assert [line.label for line in rates.lines] == [
        "body · Adam", "head · SGD · group 0", "head · SGD · group 1",
    ]  # fmt: skip
    assert not any("momentum" in chart.title.lower() for chart in charts)


def test_momentum_and_decay_of_each_group_share_a_chart_each(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {"kind": "watched"})
    names = ("lr", "lr/optimizer 1", "momentum", "momentum/optimizer 1", "weight_decay")
    with closing(Writer(path)) as writer:
        writer.append("scalar", 0, tuple(map(SeriesKey, names)), np.ones(5, np.float32))
        writer.document("optimizers", 0, {"step": 0, "optimizers": OPTIMIZERS})
    with Run(path) as run:
        momentum, decay = settings(run.keys(), labels(run))
    assert isinstance(momentum, LineChart) and isinstance(decay, LineChart)
    assert [(line.quantity, line.label) for line in momentum.lines] == [
        ("momentum", "body · Adam"), ("momentum/optimizer 1", "head · SGD · group 0"),
    ]  # fmt: skip
    assert (momentum.title, decay.title, len(decay.lines)) == ("Momentum", "Weight decay", 1)
    assert settings([SeriesKey("loss"), SeriesKey("lr")]) == ()


def applied(seq: int, name: str, effective: float, target: str = "") -> StoredEvent:
    event = CommandApplied(command_id=str(seq), name=name, effective=effective, target=target)
    return StoredEvent(seq=seq, step=seq, wall=0.0, mono_ns=0, rank=0, event=event)


def test_a_command_for_a_part_is_in_force_there_only_until_one_for_all() -> None:
    events = [
        applied(1, "lr", 0.5, "1"), applied(2, "lr", 0.2), applied(3, "lr", 0.3, "1/1"),
        applied(4, "weight_decay", 0.1, "1/1"), applied(5, "lr", 0.4, "0/0"),
        applied(6, "lr", 0.6, "10"),
    ]  # fmt: skip
    assert in_force({}, events).lr == 0.4
    assert in_force({}, events).weight_decay is None
    assert [(one.name, one.target) for one in in_parts(events)] == [
        ("lr", "1/1"), ("weight_decay", "1/1"), ("lr", "10"),
    ]  # fmt: skip
    later = [*events, applied(7, "lr", 0.7, "1")]
    assert [(one.name, one.target) for one in in_parts(later)] == [
        ("weight_decay", "1/1"), ("lr", "10"), ("lr", "1"),
    ]  # fmt: skip
