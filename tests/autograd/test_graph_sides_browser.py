"""Two sides, colours, paths, comparison and files of the graph page, in a real Chromium."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from torch import nn
from torchvision.models import resnet152

from tests.app.tab import Tab
from tests.autograd.graph_pages import (
    another_picture,
    click_and_wait,
    open_graph,
    record,
    served,
)

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser


class Choosing(nn.Module):
    """Two ways to go, and on one of them a NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.left = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.right = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, way: str) -> torch.Tensor:
        h = self.stem(x)
        if way == "nan":
            return self.head((h - h).abs().sqrt() * 0)
        return self.head(self.left(h) if way == "left" else self.right(h))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sides")
    runs, x = folder / "runs", torch.ones(2, 3)
    torch.manual_seed(0)
    record(runs, "ways", Choosing(), {
        1: lambda m: m(x, "left").sum(), 2: lambda m: m(x, "right").sum(),
    })  # fmt: skip
    record(runs, "nan", Choosing(), {1: lambda m: m(x, "nan").sum()})
    image = torch.randn(2, 3, 32, 32)
    record(runs, "resnet152", resnet152(num_classes=4), {1: lambda m: m(image).sum()})
    with served(folder, runs) as url:
        yield url


def test_resnet_152_opens_by_click(tab: Tab) -> None:
    open_graph(tab, "resnet152")
    assert tab.page.locator("g.node").count() < 60
    click_and_wait(tab, tab.page.locator('[data-key="m:layer3"]'))
    assert tab.page.locator('g.fold[data-key^="m:layer3."]').count() == 36
    click_and_wait(tab, tab.page.locator('[data-key="m:layer3.20"]'))
    sync_api.expect(tab.page.locator('[data-key="m:layer3.20.conv2"]')).to_have_count(1)


def test_the_other_side_keeps_selection_folds_and_place(tab: Tab) -> None:
    open_graph(tab, "ways")
    frames = tab.page.locator("g.cluster").count()
    assert frames > 3
    weight = tab.page.locator("g.parameter", has_text="4×4").first
    tab.click(weight, tab.page.locator("g.chosen"))
    before = tab.page.locator("g.chosen").bounding_box()
    click_and_wait(tab, tab.page.get_by_text("Forward", exact=True))
    chosen = tab.page.locator("g.chosen")
    sync_api.expect(chosen).to_have_attribute("data-key", re.compile(r"m:right\.[02]"))
    sync_api.expect(chosen).to_contain_text("2×4 → 2×4")

    def in_place() -> bool:
        after = chosen.bounding_box()
        moved = after["x"] + after["width"] / 2 - before["x"] - before["width"] / 2
        return abs(moved) < 3 and abs(after["y"] - before["y"]) < 8

    tab.until(in_place, "the selection in its place")
    assert tab.page.locator("g.parameter").count() == 0
    click_and_wait(tab, tab.page.get_by_text("Backward", exact=True))
    assert tab.page.locator("g.cluster").count() == frames
    sync_api.expect(tab.page.locator("g.chosen")).to_have_class(re.compile("parameter"))


def test_colours_change_with_what_is_asked_for(tab: Tab) -> None:
    open_graph(tab, "ways")
    for name, unit in (("Saved memory", "saved"), ("Backward time", "µs")):
        tab.choose("Colour by", f"Colour: {name}", another_picture(tab))
        sync_api.expect(tab.page.locator("g.node", has_text=unit).first).to_be_visible()
        assert "‖" not in tab.page.locator(".sheet").inner_text()


def test_the_way_of_a_nan_is_walked_along(tab: Tab) -> None:
    open_graph(tab, "nan")
    tab.page.get_by_text("The first non-finite gradient leaves SqrtBackward0").wait_for()
    assert tab.page.locator("g.edge.path").count() == 6
    focused = tab.page.locator("g.node:focus")
    tab.press("next ›", tab.page.locator(".tour .stop", has_text="1 of 7"))
    sync_api.expect(focused).to_contain_text("SqrtBackward0")
    tab.press("next ›", focused.filter(has_text="AbsBackward0"))
    click_and_wait(tab, tab.page.get_by_text("Way of the NaN"))
    assert tab.page.locator("g.edge.path").count() == 0


def test_two_steps_are_compared_and_a_difference_is_gone_to(tab: Tab) -> None:
    open_graph(tab, "ways", "&graph=2&with=1")
    tab.page.get_by_text("only in step 1,").wait_for()
    sync_api.expect(tab.page.locator("g.node", has_text="only in step 1")).to_have_count(5)
    sync_api.expect(tab.page.locator("g.node", has_text="only in step 2")).to_have_count(9)
    chosen = tab.page.locator("g.chosen", has_text="TanhBackward0")
    tab.choose("Go to a difference", "1 node in left.1 only in step 1", chosen)

    def in_view() -> bool:
        view, box = tab.page.locator(".view").bounding_box(), chosen.bounding_box()
        return view["y"] < box["y"] < view["y"] + view["height"]

    tab.until(in_view, "the difference in view")


def test_a_link_reopens_the_view(tab: Tab) -> None:
    open_graph(tab, "ways", "&graph=1&side=forward&colour=memory&box=m:stem&open=m:")
    sync_api.expect(tab.page.locator("g.chosen")).to_have_attribute("data-key", "m:stem")
    sync_api.expect(tab.page.locator("g.node", has_text="left")).to_contain_text("2×4 → 2×4")
    tab.page.get_by_text("Step 1 ·").wait_for()
    click_and_wait(tab, tab.page.locator('[data-key="m:left"]'))
    tab.until(lambda: "open=m:left" in unquote(tab.page.url), "what is open in the link")
    link = tab.page.url
    tab.page.goto("about:blank")
    tab.visit(link)
    tab.page.locator("g.cluster[data-key='m:left']").wait_for()


def test_the_picture_is_saved_as_png_at_twice_its_size(tab: Tab, tmp_path: Path) -> None:
    open_graph(tab, "nan")
    size = tab.page.locator(".sheet svg").evaluate(
        "svg => [svg.getAttribute('width'), svg.getAttribute('height')].map(Number)"
    )
    data = tab.download(tab.button("PNG"), tmp_path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == tuple(round(2 * length) for length in size)
    assert len(data) > 10_000


def test_the_page_of_a_view_works_without_any_network(
    tab: Tab, chromium: Any, tmp_path: Path
) -> None:
    open_graph(tab, "nan")
    boxes = tab.page.locator("g.node").count()
    saved = tab.button("HTML page of this view")
    tab.press("Download", saved)
    file = tab.download(saved, tmp_path / "view.html")
    context = chromium.new_context(offline=True)
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.locator(f'section.graph[data-shown="{boxes}"]').wait_for()
    page.get_by_text("leaves SqrtBackward0").first.wait_for()
    page.locator("g.node", has_text="SqrtBackward0").click()
    page.locator("aside", has_text="backward time").wait_for()
    page.get_by_label("Search the graph").fill("head.weight")
    sync_api.expect(page.locator("g.hit")).to_have_count(1)
    assert asked == [file.as_uri()]
    context.close()
