"""Runs over each other: which series they share, where steps lie, what differs, how they ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.charts.parallel import parallel
from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.events import CommandApplied, Event, Resumed, RunContinued
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views import compare, compare_settings
from inspector.views.compare_parallel import upright, uprights
from inspector.views.compare_settings import Difference


def recorded_run(
    folder: Path,
    name: str,
    series: dict[str, dict[int, float]],
    *,
    config: dict[str, Any] | None = None,
    events: list[tuple[int, Event]] | None = None,
) -> Run:
    path = create_run(folder, name, {"kind": "built_in" if config else "watched",
                                     "config": config or {}})  # fmt: skip
    writer = Writer(path)
    for quantity, values in series.items():
        for step, value in values.items():
            writer.append(quantity, step, (SeriesKey(quantity),), np.array([value], np.float32))
    for step, event in events or []:
        writer.event(step, event)
    writer.close()
    return Run(path)


def test_shared_series_come_usual_ones_first_and_say_how_many_runs_have_them(
    tmp_path: Path,
) -> None:
    one = recorded_run(tmp_path, "one", {"memory": {0: 1}, "loss": {0: 1}, "my_score": {0: 1}})
    two = recorded_run(tmp_path, "two", {"val_loss": {0: 1}, "loss": {0: 1}})
    with one, two:
        found = compare.recorded([one, two])
    assert [(item.quantity, item.runs) for item in found] == [
        ("loss", 2), ("val_loss", 1), ("my_score", 1), ("memory", 1),
    ]  # fmt: skip
    assert found[2].title == "my_score"
    assert compare.usual(found) == ["loss", "val_loss"]


def test_steps_lie_on_the_epochs_that_the_run_recorded(tmp_path: Path) -> None:
    epochs = {step: (step + 1) / 4 for step in range(8)}
    with recorded_run(tmp_path, "run", {"loss": {1: 5, 3: 4, 7: 3}, "epoch": epochs}) as run:
        curve = compare.curve(run, "loss", "epoch")
        assert curve is not None
        assert curve.x.tolist() == [0.5, 1.0, 2.0]
        assert curve.series.values.tolist() == [5, 4, 3]


def test_a_run_without_epochs_has_no_place_on_that_axis(tmp_path: Path) -> None:
    with recorded_run(tmp_path, "run", {"loss": {0: 1}}) as run:
        assert compare.curve(run, "loss", "epoch") is None
        assert compare.curve(run, "val_loss") is None


def times(
    path: Path, patch: pytest.MonkeyPatch, write: Callable[[Writer, int], None]
) -> list[float]:
    """The places on the axis of time of what is written in three turns, ten seconds apart."""
    now = [1000.0]
    for module in ("chunks", "intake"):
        patch.setattr(f"inspector.store.{module}.steady", lambda: now[0])
    made = create_run(path, "run", {})
    writer = Writer(made)
    for turn in range(3):
        write(writer, turn)
        writer.flush()
        now[0] += 10.0
    writer.close()
    with Run(made) as run:
        curve = compare.curve(run, "loss", "time")
    assert curve is not None
    return list(map(float, curve.x))


def test_wall_time_starts_at_zero_and_follows_the_clock_of_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(writer: Writer, turn: int) -> None:
        writer.append("run", turn, (SeriesKey("loss"),), np.array([1.0], np.float32))

    assert times(tmp_path, monkeypatch, write) == [0.0, 10.0, 20.0]


def test_steps_that_were_taken_in_at_one_go_lie_apart_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that the compiled part records: on one spot, a chart would show one of them."""

    def write(writer: Writer, turn: int) -> None:
        writer.extend("run", 10 * turn, (SeriesKey("loss"),), np.ones((10, 1), np.float32))

    assert times(tmp_path, monkeypatch, write)[9:] == pytest.approx(list(range(21)))


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_computer_clock_that_is_set_meanwhile_moves_no_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    clock = time.time
    for step in range(3):
        writer.append("run", step, (SeriesKey("loss"),), np.array([1.0], np.float32))
        writer.flush()
        monkeypatch.setattr("time.time", lambda ahead=jump * (step + 1): clock() + ahead)
    writer.close()
    with Run(path) as run:
        curve = compare.curve(run, "loss", "time")
    assert curve is not None
    assert 0 < curve.x[1] < curve.x[2] < 60


def test_difference_of_two_curves_is_taken_where_both_are_known(tmp_path: Path) -> None:
    parent = recorded_run(tmp_path, "parent", {"loss": {0: 4, 2: 2, 4: 1}})
    fork = recorded_run(tmp_path, "fork", {"loss": {1: 3, 2: 2.5, 3: 2, 9: 0}})
    with parent, fork:
        first, second = (compare.curve(run, "loss") for run in (parent, fork))
        assert first is not None
        assert second is not None
        gap = compare.gap(first, second, start=2)
        assert gap is not None
        assert gap.x.tolist() == [2, 3]
        assert gap.series.values.tolist() == [0.5, 0.5]  # the parent is 1.5 at step 3
        assert compare.gap(first, second, start=5) is None


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "lower"),
        ("val_accuracy", "higher"),
        ("val_f1", "higher"),
        ("perplexity", "lower"),
        ("lr", ""),
        ("total_grad_norm", ""),
        ("glossary", ""),
    ],
)
def test_which_way_is_better_is_read_from_the_words_of_a_name(name: str, direction: str) -> None:
    assert compare.better(name) == direction


def test_outcome_is_the_newest_number_and_the_best_with_its_step(tmp_path: Path) -> None:
    series = {"val_loss": {9: 3.0, 19: 1.0, 29: 2.0}, "accuracy": {0: 0.5, 1: 0.25}, "lr": {0: 1}}
    with recorded_run(tmp_path, "run", series) as run:
        assert compare.outcome(run, "val_loss") == compare.Outcome(2.0, 1.0, 19)
        assert compare.outcome(run, "accuracy") == compare.Outcome(0.25, 0.5, 0)
        assert compare.outcome(run, "lr") == compare.Outcome(1.0)
        assert compare.outcome(run, "test_loss") is None


def test_best_of_a_long_series_is_not_lost_in_its_buckets(tmp_path: Path) -> None:
    values = dict.fromkeys(range(6000), 10.0) | {2345: 1.0}
    with recorded_run(tmp_path, "run", {"loss": values}) as run:
        found = compare.outcome(run, "loss")
    assert found is not None
    assert (found.best, found.best_step) == (1.0, 2345)


def test_only_settings_that_differ_are_listed_by_their_full_path() -> None:
    plain = RunConfig(lr=0.1, model_args={"hidden": 8})
    other = RunConfig(
        lr=0.1,
        model_args={"hidden": 16},
        controls=Controls(clip="norm", schedule={"name": "cosine"}),
        param_groups=[{"modules": ["head"], "lr": 1.0}],
    )
    found = compare_settings.differing([compare_settings.flat(c.to_dict()) for c in (plain, other)])
    assert {item.path: item.values for item in found} == {
        "model_args.hidden": (8, 16),
        "param_groups.0.modules": (None, ["head"]),
        "param_groups.0.lr": (None, 1.0),
        "controls.clip": ("off", "norm"),
        "controls.schedule.name": (None, "cosine"),
    }


def test_a_run_of_an_older_version_does_not_differ_in_settings_it_did_not_know() -> None:
    older = {"model": "mlp", "lr": 0.1}
    newer = RunConfig(model="mlp", lr=0.1).to_dict()
    assert compare_settings.differing([compare_settings.flat(c) for c in (older, newer)]) == []


def test_first_controls_win_over_the_optimizers_settings() -> None:
    settings = compare_settings.flat(RunConfig(lr=0.1, controls=Controls(lr=0.5)).to_dict())
    assert settings["lr"] == 0.5
    assert "controls.lr" not in settings


def test_an_axis_keeps_what_is_asked_for() -> None:
    numbers = upright("lr", [0.1, 0.01, None, 0.001])
    assert numbers is not None
    assert numbers.options == ["0.001", "0.01", "0.1"]
    assert numbers.keeps(["0.01", "0.1"]) == (True, True, False, False)
    assert numbers.keeps(["0.001", "0.1"]) == (True,) * 4  # all of it: also what has none
    choices = upright("clip", ["norm", None, "value"])
    assert choices is not None
    assert choices.keeps(["norm", "–"]) == (True, True, False)
    assert choices.keeps([]) == (True,) * 3


def test_brushed_lines_are_grey_and_lie_behind() -> None:
    axes = [axis for axis in (upright("lr", [1, 2, 3]), upright("x", [3, 2, 1])) if axis]
    figure = parallel(["a", "b", "c"], axes, dark=False, kept=[True, False, True])
    assert [trace.name for trace in figure.data] == ["b", "c", "a"]
    assert [trace.showlegend for trace in figure.data] == [False, True, True]


def test_a_watched_script_is_compared_by_what_its_optimizer_began_with(tmp_path: Path) -> None:
    own = recorded_run(tmp_path, "own", {"lr": {0: 0.25, 1: 0.5}, "momentum": {0: 0.0, 1: 0.0}})
    built = recorded_run(tmp_path, "built", {}, config=RunConfig(lr=0.1).to_dict())
    with own, built:
        found = compare_settings.differing([compare_settings.settings(run) for run in (own, built)])
    assert found == [Difference("lr", (0.25, 0.1))]


def test_what_was_done_by_hand_is_listed_and_pausing_is_not(tmp_path: Path) -> None:
    applied = CommandApplied(command_id="a", name="lr", requested=0.5, effective=0.5)
    paused = CommandApplied(command_id="b", name="pause")
    events: list[tuple[int, Event]] = [(7, applied), (8, paused), (8, Resumed())]
    with recorded_run(tmp_path, "run", {"loss": {0: 1}}, events=events) as run:
        done = compare_settings.interventions("run", run.events())
    assert [(item.step, item.what) for item in done] == [(7, "lr = 0.5")]


def test_a_fork_names_its_parent(tmp_path: Path) -> None:
    event = RunContinued(parent="first", at=150, changes={"lr": 0.5})
    with recorded_run(tmp_path, "fork", {"loss": {150: 1}}, events=[(150, event)]) as run:
        assert compare_settings.origin(run.events()) == event


def test_numbers_far_apart_get_a_logarithmic_axis() -> None:
    axis = upright("lr", [0.001, 0.1, None, 0.01])
    assert axis is not None
    assert axis.title == "lr (log)"
    assert axis.places == pytest.approx((0.0, 1.0, None, 0.5))


def test_categories_have_a_place_each_and_not_set_is_one_of_them() -> None:
    axis = upright("controls.schedule.name", ["cosine", None, "cosine"])
    assert axis is not None
    assert axis.places == (0.25, 0.75, 0.25) or axis.places == (0.75, 0.25, 0.75)
    assert {label for _, label in axis.ticks} == {"cosine", "–"}


def test_results_stay_at_the_end_and_axes_without_a_difference_go() -> None:
    differences = [Difference("lr", (0.1, 0.2)), Difference("seed", (1, 1))]
    axes = uprights(differences, [("Loss, best", [0.5, 0.4]), ("Accuracy, best", [None, None])])
    assert [(axis.title, axis.result) for axis in axes] == [("lr", False), ("Loss, best", True)]


def test_where_a_run_comes_from_is_no_axis() -> None:
    differences = [
        Difference("model", ("file:net.py:Net", "mlp")),
        Difference("resume", (None, "first@20")),
        Difference("weights", ("/home/me/net.pt", None)),
        Difference("lr", (0.1, 0.2)),
    ]
    assert [axis.title for axis in uprights(differences, [])] == ["model", "lr"]


def test_titles_are_whole_and_of_paths_the_end_is_kept() -> None:
    axes = uprights(
        [Difference("data", ("folder:/home/me/shapes", "csv:/home/me/trees.csv"))],
        [("Validation loss, best", [0.5, 1e-4])],
    )
    notes = [note.text for note in parallel(["a", "b"], axes, dark=False).layout.annotations]
    assert any("Validation" in text and "(log)" in text for text in notes)
    assert any(text.endswith("me/trees.csv") for text in notes)


def test_labels_of_ticks_do_not_lie_over_each_other() -> None:
    axis = upright("Loss, best", [0.0, 0.5, 0.51, 1.0, 0.99], result=True)
    assert axis is not None
    heights = [height for height, _ in axis.ticks]
    assert np.diff(heights).min() >= 0.08
    assert (heights[0], heights[-1]) == (0.0, 1.0)
