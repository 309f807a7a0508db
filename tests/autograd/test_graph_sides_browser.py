"""Two sides, colours, paths, comparison and files of the graph page, in a real Chromium."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet152

from tests.autograd.graph_pages import PICTURE_MS, click_and_wait, open_graph, record, served

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


def test_resnet_152_opens_by_click(page: Any, address: str) -> None:
    open_graph(page, address, "resnet152")
    assert page.locator("g.node").count() < 60
    click_and_wait(page, page.locator('[data-key="m:layer3"]'))
    assert page.locator('g.fold[data-key^="m:layer3."]').count() == 36
    click_and_wait(page, page.locator('[data-key="m:layer3.20"]'))
    sync_api.expect(page.locator('[data-key="m:layer3.20.conv2"]')).to_have_count(1)


def test_the_other_side_keeps_selection_folds_and_place(page: Any, address: str) -> None:
    open_graph(page, address, "ways")
    frames = page.locator("g.cluster").count()
    assert frames > 3
    weight = page.locator("g.parameter", has_text="4×4").first
    weight.click()
    sync_api.expect(page.locator("g.chosen")).to_have_count(1)
    before = page.locator("g.chosen").bounding_box()
    click_and_wait(page, page.get_by_text("Forward", exact=True))
    chosen = page.locator("g.chosen")
    sync_api.expect(chosen).to_have_attribute("data-key", re.compile(r"m:right\.[02]"))
    sync_api.expect(chosen).to_contain_text("2×4 → 2×4")
    after = chosen.bounding_box()
    assert abs(after["x"] + after["width"] / 2 - before["x"] - before["width"] / 2) < 3
    assert abs(after["y"] - before["y"]) < 8
    assert page.locator("g.parameter").count() == 0
    click_and_wait(page, page.get_by_text("Backward", exact=True))
    assert page.locator("g.cluster").count() == frames
    sync_api.expect(page.locator("g.chosen")).to_have_class(re.compile("parameter"))


def test_colours_change_with_what_is_asked_for(page: Any, address: str) -> None:
    open_graph(page, address, "ways")
    for name, unit in (("Saved memory", "saved"), ("Backward time", "µs")):
        page.get_by_role("combobox", name="Colour by").click()
        click_and_wait(page, page.get_by_role("option", name=f"Colour: {name}"))
        sync_api.expect(page.locator("g.node", has_text=unit).first).to_be_visible()
        assert "‖" not in page.locator(".sheet").inner_text()


def test_the_way_of_a_nan_is_walked_along(page: Any, address: str) -> None:
    open_graph(page, address, "nan")
    page.get_by_text("The first non-finite gradient leaves SqrtBackward0").wait_for()
    assert page.locator("g.edge.path").count() == 6
    page.get_by_role("button", name="next ›").click()
    sync_api.expect(page.locator(".tour .stop")).to_have_text(re.compile("1 of 7"))
    sync_api.expect(page.locator("g.node:focus")).to_contain_text("SqrtBackward0")
    page.get_by_role("button", name="next ›").click()
    sync_api.expect(page.locator("g.node:focus")).to_contain_text("AbsBackward0")
    click_and_wait(page, page.get_by_text("Way of the NaN"))
    assert page.locator("g.edge.path").count() == 0


def test_two_steps_are_compared_and_a_difference_is_gone_to(page: Any, address: str) -> None:
    open_graph(page, address, "ways", "&graph=2&with=1")
    page.get_by_text("only in step 1,").wait_for()
    sync_api.expect(page.locator("g.node", has_text="only in step 1")).to_have_count(5)
    sync_api.expect(page.locator("g.node", has_text="only in step 2")).to_have_count(9)
    page.get_by_role("combobox", name="Go to a difference").click()
    page.get_by_role("option", name="1 node in left.1 only in step 1").click()
    sync_api.expect(page.locator("g.chosen")).to_contain_text("TanhBackward0")
    view = page.locator(".view").bounding_box()
    chosen = page.locator("g.chosen").bounding_box()
    assert view["y"] < chosen["y"] < view["y"] + view["height"]


def test_a_link_reopens_the_view(page: Any, address: str) -> None:
    open_graph(page, address, "ways", "&graph=1&side=forward&colour=memory&box=m:stem&open=m:")
    sync_api.expect(page.locator("g.chosen")).to_have_attribute("data-key", "m:stem")
    sync_api.expect(page.locator("g.node", has_text="left")).to_contain_text("2×4 → 2×4")
    page.get_by_text("Step 1 ·").wait_for()
    click_and_wait(page, page.locator('[data-key="m:left"]'))
    link = page.url
    assert "open=m%3Aleft" in link or "open=m:left" in link
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("g.cluster[data-key='m:left']", timeout=PICTURE_MS)


def test_the_picture_is_saved_as_png_at_twice_its_size(page: Any, address: str) -> None:
    open_graph(page, address, "nan")
    size = page.locator(".sheet svg").evaluate(
        "svg => [svg.getAttribute('width'), svg.getAttribute('height')].map(Number)"
    )
    with page.expect_download() as saved:
        page.get_by_role("button", name="PNG").click()
    data = Path(saved.value.path()).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == tuple(round(2 * length) for length in size)
    assert len(data) > 10_000


def test_the_page_of_a_view_works_without_any_network(
    page: Any, address: str, chromium: Any, tmp_path: Path
) -> None:
    open_graph(page, address, "nan")
    boxes = page.locator("g.node").count()
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="HTML page of this view").click()
    file = tmp_path / "view.html"
    file.write_bytes(Path(saved.value.path()).read_bytes())
    context = chromium.new_context(offline=True)
    asked: list[str] = []
    tab = context.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    tab.locator(f'section.graph[data-shown="{boxes}"]').wait_for()
    tab.get_by_text("leaves SqrtBackward0").first.wait_for()
    tab.locator("g.node", has_text="SqrtBackward0").click()
    tab.locator("aside", has_text="backward time").wait_for()
    tab.get_by_label("Search the graph").fill("head.weight")
    sync_api.expect(tab.locator("g.hit")).to_have_count(1)
    assert asked == [file.as_uri()]
    context.close()
