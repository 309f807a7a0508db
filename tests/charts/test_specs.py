"""Chart specifications: words from the list of quantities, and the way to the browser and back."""

from __future__ import annotations

import json

import pytest

from inspector.charts import boards
from inspector.charts.specs import Line, from_dict, lines, matrix, number, to_dict
from inspector.errors import ConfigError
from inspector.quantities import QUANTITIES


@pytest.mark.parametrize(
    "board",
    [boards.overview(), boards.gradients(), boards.updates(), boards.activations(),
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
