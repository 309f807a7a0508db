"""Chart specifications: words from the list of quantities, and the way to the browser and back."""

from __future__ import annotations

import json

import pytest

from inspector.charts import boards
from inspector.charts.specs import Line, from_dict, lines, matrix, number, to_dict
from inspector.errors import ConfigError
from inspector.quantities import QUANTITIES, SeriesKey


@pytest.mark.parametrize(
    "board",
    [boards.overview(), boards.overview([SeriesKey("test_loss"), SeriesKey("f1")]),
     boards.parameter("fc.weight"), boards.module("fc"), boards.module("")],
)  # fmt: skip
def test_every_board_survives_the_way_to_the_browser_and_back(board: tuple[object, ...]) -> None:
    there = json.loads(json.dumps([to_dict(chart) for chart in board]))  # type: ignore[arg-type]
    assert tuple(from_dict(fields) for fields in there) == board
    assert len({fields["id"] for fields in there}) == len(there)


def test_titles_units_and_hover_texts_come_from_the_quantities() -> None:
    chart = lines("lr")
    known = QUANTITIES["lr"]
    assert (chart.title, chart.log, chart.about) == (known.title, True, known.about)
    assert matrix("grad_norm", by="module").unit == "L2"
    assert number("memory").unit == "B"


def test_a_scalar_of_the_users_own_needs_no_entry() -> None:
    chart = lines("my_metric")
    assert (chart.title, chart.unit, chart.log) == ("my_metric", "", False)


def test_the_overview_has_a_chart_for_each_scalar_of_ones_own() -> None:
    names = ("loss", "val_loss", "lr", "grad_norm", "test_loss", "my_metric", "val_f1", "train_f1",
             "box/iou", "box/area", "test_accuracy")  # fmt: skip
    charts = {chart.title: chart for chart in boards.overview(map(SeriesKey, names))}
    drawn = {
        title: [(line.quantity, line.label) for line in chart.lines]
        for title, chart in charts.items()
        if chart.kind == "line"
    }
    assert drawn["Loss"][-1] == ("test_loss", "test")
    assert drawn["Accuracy"][-1] == ("test_accuracy", "test")
    assert drawn["my_metric"] == [("my_metric", "my_metric")]
    assert drawn["f1"] == [("train_f1", "training"), ("val_f1", "validation")]
    assert drawn["box"] == [("box/area", "area"), ("box/iou", "iou")]
    assert "grad_norm" not in drawn
    assert len(boards.overview()) + 3 == len(charts)


def test_lines_measured_once_an_epoch_are_not_smoothed() -> None:
    chart = lines("loss", Line("val_loss", label="validation"), smooth=0.9)
    assert [line.sparse for line in chart.lines] == [False, True]
    assert [line.label for line in chart.lines] == ["Loss", "validation"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "pie"}, "Expected a chart of kind line, matrix, number"),
        ({"kind": "matrix", "id": "x"}, "Expected the fields of a matrix chart"),
        ({"kind": "line", "id": "x", "title": "x", "lines": [{"colour": "red"}]}, "line chart"),
    ],
)
def test_what_is_no_chart_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(fields)


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs one quantity or more"):
        lines()


def test_rates_of_groups_share_the_chart_and_a_loss_scale_has_one() -> None:
    names = ("lr", "lr/group 1", "grad_scale")
    charts = {chart.title: chart for chart in boards.overview(map(SeriesKey, names))}
    drawn = [line.key.quantity for line in charts["Learning rate"].lines]
    assert drawn == ["lr", "lr/group 1"]
    assert "Loss scale" in charts
    assert "Loss scale" not in {chart.title for chart in boards.overview()}


def test_a_metric_of_one_part_alone_says_of_which() -> None:
    keys = [SeriesKey(name) for name in ("val_f1", "val_mae", "test_mae", "reward")]
    titles = [chart.title for chart in boards.overview(keys)]
    assert "f1, validation" in titles
    assert "mae" in titles
    assert "reward" in titles


def test_charts_of_what_the_schedule_thins_are_marked() -> None:
    by_title = {chart.title: chart for chart in boards.overview([SeriesKey("loss")])}
    marked = {title for title, chart in by_title.items() if chart.thinned}
    assert marked == {"Gradient norm", "Update ratio", "Steps clipped"}
    assert matrix("activation_mean").thinned
    assert not lines("my_metric").thinned


def test_losses_share_a_chart_where_none_is_called_just_that() -> None:
    keys = [SeriesKey(name) for name in ("d_loss", "g_loss", "val_kl_loss", "train_kl_loss", "f1")]

    def labels(*more: SeriesKey) -> list[str]:
        loss = next(chart for chart in boards.overview([*keys, *more]) if chart.title == "Loss")
        return [line.label for line in loss.lines]  # type: ignore[union-attr]

    own = ["d_loss", "g_loss", "kl_loss, training", "kl_loss, validation"]
    assert labels() == ["training", "validation", *own]
    assert labels(SeriesKey("loss")) == ["training", "validation"]
