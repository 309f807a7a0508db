"""Evidence as it is drawn: the statistic that was judged, and its limit on the same axis."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_programs import Program, faulty_programs
from scoring import seed_of, trained

import inspector
from inspector.charts.evidence import evidence_figure
from inspector.diagnosis.drawing import Drawing, as_bars, over_steps
from inspector.diagnosis.finding import CODES, Evidence, Finding
from inspector.events import RunFinished
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.views.findings import Picture, picture

torch.set_num_threads(1)
OF_EACH_CODE = {program.code: program for program in reversed(faulty_programs())}
NUMERIC = ("vanishing_gradient", "dead_relu", "saturated_activation", "class_imbalance",
           "unnormalized_input", "no_shuffle")  # fmt: skip
"""Rules that draw bars, of which the marked ones are beyond the limit."""


def shown(program: Program, folder: Path) -> tuple[Finding, list[Picture]]:
    path, _ = trained(program, seed_of(program, 405), True, folder)
    with inspector.open_run(path) as run:
        found = next(one for one in run.findings() if one.code == program.code)
        drawn = [picture(run, evidence) for evidence in found.evidence]
    return found, [one for one in drawn if one is not None]


@pytest.mark.parametrize("code", CODES)
def test_every_rule_draws_what_it_judged(code: str, tmp_path: Path) -> None:
    found, pictures = shown(OF_EACH_CODE[code], tmp_path)
    assert pictures, found
    drawing, evidence = pictures[0].drawing, found.evidence[0]
    assert len(drawing.x) == len(drawing.y) >= 1
    assert drawing.axis
    figure = evidence_figure(drawing, window=pictures[0].window)
    lines = [shape for shape in figure.layout.shapes if shape.type == "line"]
    if evidence.threshold is not None:
        assert drawing.limits, found
        assert {line.y0 for line in lines} >= {value for value, _ in drawing.limits}
        labels = " ".join(str(note.text).replace("<br>", " ") for note in figure.layout.annotations)
        assert all(label in labels for _, label in drawing.limits)
    if code in NUMERIC:
        sign = 1 if evidence.side == "above" else -1
        (limit, _), *_ = drawing.limits
        beyond = [y for at, y in enumerate(drawing.y) if at in drawing.marked and y is not None]
        assert beyond
        assert all(sign * y > sign * limit for y in beyond) != (code == "class_imbalance")


def test_the_label_of_a_limit_stands_at_the_logarithm_on_a_logarithmic_axis() -> None:
    drawing = as_bars([("a", 1e-8), ("b", 1.0)], "size", (1e-3, "limit 0.001"), log=True)
    figure = evidence_figure(drawing)
    assert figure.layout.yaxis.type == "log"
    (note,) = (one for one in figure.layout.annotations if one.text == "limit 0.001")
    assert note.y == pytest.approx(-3)
    (line,) = figure.layout.shapes
    assert (line.y0, line.y1) == (1e-3, 1e-3)
    low, high = figure.layout.yaxis.range
    assert low < -8
    assert high > 0


def test_bars_whose_long_names_end_alike_stay_apart() -> None:
    names = [
        "layer2.0.downsample.0.weight",
        "encoder.weight_of_all_heads",
        "decoder.weight_of_all_heads",
    ]
    figure = evidence_figure(as_bars(zip(names, (1.0, 2.0, 3.0), strict=True), "size"))
    (bars,) = figure.data
    assert len(set(bars.x)) == 3
    assert figure.layout.xaxis.ticktext == ("l2.0.d.0.weight", *["…ight_of_all_heads"] * 2)
    assert [name for name, _ in bars.customdata] == names


def test_an_exact_zero_is_seen_on_a_logarithmic_axis() -> None:
    drawing = as_bars([("a", 0.0), ("b", 1e-12), ("c", 1.0)], "size", (1e-7, "limit"), log=True)
    figure = evidence_figure(drawing)
    (bars,) = figure.data
    low, high = figure.layout.yaxis.range
    assert all(low < math.log10(y) < high for y in bars.y)
    assert bars.text[0] == "0"
    assert bars.customdata[0] == ["a", 0.0]


def test_of_many_parameters_some_that_learn_stand_beside_those_that_do_not() -> None:
    frozen = [(f"layer{at}.weight", 0.0) for at in range(60)]
    drawing = as_bars(
        [*frozen, ("fc.weight", 1e-3)], "update ratio", marked=[name for name, _ in frozen], of=90
    )
    assert len(drawing.x) == 24
    assert (drawing.x[0], drawing.x[-2:]) == ("layer0.weight", ("layer59.weight", "fc.weight"))
    assert drawing.marked == tuple(range(23))
    figure = evidence_figure(drawing)
    assert figure.layout.xaxis.title.text == "and 66 more"
    assert evidence_figure(as_bars(frozen[:3], "update ratio", of=3)).layout.xaxis.title.text == ""
    learning = as_bars([*frozen, ("fc.weight", 1.0)], "size", marked=["layer40.weight"], of=61)
    assert "layer40.weight" in learning.x
    assert learning.x[-1] == "fc.weight"


def test_no_line_strikes_through_the_number_of_a_bar() -> None:
    bars = [("a", 1e-6), ("b", 1.8e-4), ("c", 2e-3), ("d", 1.0)]
    figure = evidence_figure(as_bars(bars, "size", (1e-3, "limit"), marked=("a", "b")))
    assert figure.data[0].text == ("1e-6", "", "0.002", "1")
    (lifted,) = [note for note in figure.layout.annotations if note.text == "0.00018"]
    assert (lifted.x, lifted.y, lifted.yanchor) == (1, -3, "bottom")
    assert lifted.font.color == figure.data[0].marker.color[1]
    close = as_bars([("a", 0.88), ("b", 0.5)], "share", (0.9, "limit"), (0.95, "other"))
    figure = evidence_figure(close)
    (lifted,) = [note for note in figure.layout.annotations if note.text == "0.88"]
    assert lifted.y == 0.95


def test_a_linear_axis_reaches_to_the_limit() -> None:
    figure = evidence_figure(over_steps([0, 1], [0.1, 0.2], "share", (0.9, "limit 0.9")))
    drawn = [value for trace in figure.data for value in trace.y]
    assert max(drawn) == 0.9


def test_the_window_is_shaded_and_nan_is_named() -> None:
    drawing = over_steps(range(4), [1.0, 2.0, math.nan, math.nan], "loss")
    figure = evidence_figure(drawing, window=(1, 3))
    boxes = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert boxes == [(1, 3), (2, 3)]
    assert any("from step 2" in str(note.text) for note in figure.layout.annotations)


def test_a_nan_that_passed_is_drawn_where_it_was() -> None:
    figure = evidence_figure(over_steps(range(5), [1.0, math.nan, 2.0, 1.0, 1.0], "loss"))
    boxes = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert boxes == [(1, 1)]
    assert [str(note.text) for note in figure.layout.annotations] == ["NaN or infinity at step 1"]


def test_a_long_line_is_thinned_and_keeps_its_spike() -> None:
    values = np.zeros(50_000)
    values[31_234] = 7.0
    drawing = over_steps(np.arange(50_000), values, "x")
    assert len(drawing.x) < 400
    assert 7.0 in drawing.y
    assert drawing.x[0] == 0
    assert drawing.x[-1] == 49_999


class Nothing:
    def series(self, *_: Any, **__: Any) -> Any:
        return type("Empty", (), {"steps": [], "values": []})


def test_a_users_own_rule_gets_its_number_beside_its_limit() -> None:
    made = picture(Nothing(), Evidence(statistic="the answer", value=42.0, threshold=41.0))
    assert made is not None
    assert made.drawing == Drawing(
        axis="the answer", x=("this run",), y=(42.0,), limits=((41.0, "limit 41"),), marked=(0,)
    )
    assert picture(Nothing(), Evidence(statistic="a fact")) is None


def test_the_first_losses_do_not_flatten_those_that_rise_again(tmp_path: Path) -> None:
    held_out = [2.3, 1.1, 0.4, 0.2, 0.25, 0.3, 0.35, 0.4]
    path = create_run(tmp_path, "run", {"kind": "watched"})
    with closing(Writer(path)) as writer:
        for step in range(800):
            keys, row = [SeriesKey("loss")], [2.3 * 0.995**step]
            if step % 100 == 99:
                keys, row = [*keys, SeriesKey("val_loss")], [*row, held_out[step // 100]]
            writer.append(f"scalar/{len(row)}", step, tuple(keys), np.array(row, np.float32))
        writer.event(800, RunFinished())
        writer.heartbeat(800, "finished")
    with inspector.open_run(path) as run:
        (finding,) = (one for one in run.findings() if one.code == "overfitting")
    drawing = finding.evidence[0].drawing
    assert drawing is not None
    assert drawing.x == (299, 399, 499, 599, 699, 799)
    assert max(y for y in drawing.y if y is not None) == pytest.approx(2.0, rel=1e-4)
    assert drawing.axis == "validation loss over its minimum, from step 299"


def test_the_few_steps_before_a_lasting_nan_fill_the_axis() -> None:
    values = [27.0, 18.0, 4e5, 7e22, *[math.nan] * 296]
    drawing = over_steps(range(300), values, "loss over its first value", (2.0, "limit"), log=True)
    figure = evidence_figure(drawing, window=(0, 299))
    first, last = figure.layout.xaxis.range
    assert -1 < first <= 0
    assert 4 < last < 20
    low, high = figure.layout.yaxis.range
    assert low < math.log10(2.0) < high  # a limit twelve decades below is still on the axis
