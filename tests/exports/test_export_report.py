"""The report in a real browser without network: what a person sees, light, dark and on paper."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inspector.exports.export import export
from inspector.exports.html.report import report
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views.findings import picture


class Opened:
    """A page, what it asked the network for, and what it complained about."""

    def __init__(self, chromium: Any, path: Path, scheme: str) -> None:
        self.context = chromium.new_context(
            offline=True, color_scheme=scheme, viewport={"width": 1280, "height": 800}
        )
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.locator("html[data-ready]").wait_for(state="attached")
        self.page.locator(".chart .main-svg").first.wait_for()


@pytest.mark.browser
def test_report_opens_offline_in_both_colours_and_on_paper(
    trained: Any, tmp_path: Path, chromium: Any
) -> None:
    with trained("deep_sigmoid", "digits", steps=150) as run:
        path = export(run, "html", tmp_path / "report.html").path
        findings = run.findings()
    assert path.stat().st_size < 8e6
    backgrounds = {}
    for scheme in ("light", "dark"):
        opened = Opened(chromium, path, scheme)
        page = opened.page
        assert opened.asked == [path.as_uri()]
        assert opened.complaints == []
        assert page.locator("h1").inner_text() == run.name
        about = page.locator("header .muted").inner_text()
        assert about.startswith("Deep sigmoid net on handwritten digits")
        boxes = [box.bounding_box() for box in page.locator(".figure").all()]
        rows = Counter(box["y"] for box in boxes if box)
        assert max(rows.values()) - min(rows.values()) <= 1  # none stands alone
        headings = page.locator(".finding h3").all_inner_texts()
        assert len(headings) == len(findings) and "Vanishing gradient" in headings
        titles = page.locator(".charts h3").all_inner_texts()
        assert {"Loss", "Accuracy", "Gradient norm"} <= set(titles)
        for chart in page.locator(".chart").all():
            assert chart.locator(".main-svg").count() > 0
            assert chart.locator(".trace, .heatmaplayer image, .hm image").count() > 0
        assert page.locator("#modules ~ section").first.locator("tbody tr").count() > 10
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        line = page.locator("#chart-loss .trace path.js-line").first
        backgrounds[f"{scheme} line"] = line.evaluate("node => node.style.stroke")
        if scheme == "dark":
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            page.locator("html.paper").wait_for(state="attached")
            width = page.locator("#chart-loss .main-svg").first.bounding_box()["width"]
            assert 500 < width <= 690
            assert line.evaluate("node => node.style.stroke") == backgrounds["light line"]
        opened.context.close()
    assert len(set(backgrounds.values())) == 4


def test_numbers_of_the_charts_are_the_recorded_ones(trained: Any) -> None:
    with trained("deep_sigmoid", "digits", steps=150) as run:
        (text,) = re.findall(r"const FIGURES = (\{.*?\});\n", report(run))
        (line,) = [
            trace for trace in json.loads(text)["chart-loss"]["data"] if trace["name"] == "Loss"
        ]
        series = run.series("loss")
    assert line["x"] == series.steps.tolist()
    assert line["y"] == pytest.approx(series.values.tolist(), rel=1e-5)


@pytest.mark.browser
def test_the_limit_of_a_finding_stands_in_its_picture(
    trained: Any, tmp_path: Path, chromium: Any
) -> None:
    with trained("deep_sigmoid", "digits", steps=150) as run:
        path = export(run, "html", tmp_path / "report.html").path
        finding = next(one for one in run.findings() if one.code == "vanishing_gradient")
        (drawn, *_) = [one for one in (picture(run, seen) for seen in finding.evidence) if one]
    (limit, label), *_ = drawn.drawing.limits
    opened = Opened(chromium, path, "dark")
    card = opened.page.locator(".finding", has=opened.page.get_by_text("Vanishing gradient").first)
    chart = card.first.locator(".evidence .chart").first
    labels = " ".join(chart.locator(".annotation-text").all_text_contents())
    assert label.replace(" ", "") in labels.replace(" ", "")
    assert chart.locator(".shapelayer path").count() >= 1
    assert opened.complaints == [] and limit > 0
    opened.context.close()


def test_names_cannot_break_out_of_the_page(tmp_path: Path, chromium: Any) -> None:
    evil = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"
    path = create_run(tmp_path, "evil", {"script": evil})
    writer = Writer(path)
    from inspector.events import Notice
    from inspector.quantities import SeriesKey

    for step in range(3):
        writer.append("scalar", step, (SeriesKey("loss"), SeriesKey(evil)), [1.0, float("nan")])
    writer.event(0, Notice(message=evil))
    writer.close()
    with Run(path) as run:
        made = export(run, "html", tmp_path / "evil.html")
    opened = Opened(chromium, made.path, "light")
    assert opened.page.title() == "evil · torch-inspector"
    assert opened.page.locator("img").count() == 0
    assert opened.complaints == []
    assert evil in opened.page.locator("body").inner_text()
    opened.context.close()


def test_chosen_metrics_stand_beside_the_losses(tmp_path: Path) -> None:
    path = create_run(tmp_path, "judged", {})
    writer = Writer(path)
    from inspector.quantities import SeriesKey

    keys = ("loss", "val_f1", "val_mae", "val_top3_accuracy", "test_f1", "val_mine")
    for step, row in enumerate(([1, 0.5, 3, 0.8, 0.1, 7], [0.9, 0.75, 2, 0.9, 0.1, 7],
                                [0.8, 0.6, 4, 0.85, 0.55, 7])):  # fmt: skip
        writer.append("run", step, tuple(map(SeriesKey, keys)), row)
    writer.close()
    with Run(path) as run:
        text = report(run)
    tiles = re.findall(r'<div class="figure"><b>(.*?)</b><span>(.*?)</span>', text)
    shown = {label: value for value, label in tiles}
    assert shown == {
        "last loss": "0.8",
        "last validation f1": "0.6", "best validation f1": "0.75",
        "last validation mae": "4", "best validation mae": "2",
        "last validation top3 accuracy": "85.0%", "best validation top3 accuracy": "90.0%",
        "last test f1": "0.55",
    }  # fmt: skip


def test_a_run_without_numbers_has_a_report_too(tmp_path: Path) -> None:
    path = create_run(tmp_path, "empty", {})
    with Run(path) as run:
        text = report(run)
    assert "<h1>empty</h1>" in text and "Plotly" not in text.split("const FIGURES")[0]
