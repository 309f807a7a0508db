"""The small picture of curves: one is bare, several have a legend in their colours."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from inspector.charts.sparkline import Curve, sparkline

SVG = "{http://www.w3.org/2000/svg}"


def test_a_single_curve_reaches_from_zero_to_its_highest_value() -> None:
    root = ElementTree.fromstring(sparkline([Curve([0.0, 1.0, 0.5])], dark=False, height=90))
    (curve,) = root.findall(f"{SVG}polyline")
    assert [point.split(",")[1] for point in curve.get("points", "").split()] == [
        "74.0", "6.0", "40.0",
    ]  # fmt: skip
    assert root.get("height") == "90"


def test_several_curves_share_the_scale_and_a_legend_in_their_colours() -> None:
    curves = [Curve([1.0, 1.0], "body & <soul>", "1"), Curve([0.5, 0.5], "a" * 200, "0.5 → 0.1")]
    root = ElementTree.fromstring(sparkline(curves, dark=True, width=260, height=90))
    drawn = root.findall(f"{SVG}polyline")[::-1]  # the first is drawn last, on top
    heights = [{point.split(",")[1] for point in (c.get("points") or "").split()} for c in drawn]
    assert heights == [{"6.0"}, {"40.0"}]
    samples = root.findall(f"{SVG}line")[1:]
    assert [one.get("stroke") for one in samples] == [one.get("stroke") for one in drawn]
    words = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "body & <soul>" in words and "0.5 → 0.1" in words
    (cut,) = [text for text in words if re.fullmatch("a+…", text)]
    assert len(cut) + len("0.5 → 0.1") < 45
    assert int(root.get("height", "0")) > 90 + 2 * 12


def test_more_curves_than_colours_are_left_out_and_gaps_are_not_drawn() -> None:
    curves = [Curve([1.0, float("nan"), 2.0], str(at)) for at in range(20)]
    drawn = sparkline(curves, dark=False)
    assert drawn.count("<polyline") == 8
    assert "nan" not in drawn
