"""The graph page in a real Chromium, behind the app's own content security policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.autograd.graph_pages import PICTURE_MS, click_and_wait, open_graph, place, record, served

sync_api = pytest.importorskip("playwright.sync_api")
HOSTILE = '"]; a->b [x="<img src=x onerror=alert(1)>'

pytestmark = pytest.mark.browser


class Unrolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(3, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, steps: int) -> torch.Tensor:
        h = torch.zeros(2, 3)
        for _ in range(steps):
            h = self.cell(torch.ones(2, 3), h)
        return self.head(h)


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.Tanh()) for _ in range(15)))
                for _ in range(3)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x)


class Hostile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({HOSTILE: nn.Linear(2, 2), "other": nn.Linear(2, 2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner["other"](self.inner[HOSTILE](x))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("graphs")
    runs = folder / "runs"
    record(runs, "stages", Stages(), {5: lambda model: model(torch.ones(1, 2)).sum()})
    record(runs, "unrolled", Unrolled(), {5: lambda model: model(1000).sum()})
    record(runs, "hostile", Hostile(), {5: lambda model: model(torch.ones(1, 2)).sum()})
    with served(folder, runs) as url:
        yield url


def scale_of(page: sync_api.Page) -> str:
    found = re.search(r"scale\([\d.]+\)", place(page))
    assert found is not None
    return found.group()


def test_a_fold_opens_and_closes_by_click_and_the_zoom_stays(
    page: sync_api.Page, address: str
) -> None:
    open_graph(page, address, "stages")
    closed = page.locator("g.node").count()
    before = scale_of(page)
    page.get_by_role("button", name="+", exact=True).click()
    sheet = page.locator(".sheet")
    sync_api.expect(sheet).not_to_have_attribute("style", re.compile(re.escape(before)))
    scale = scale_of(page)
    first = page.locator("g.fold", has_text="Sequential").first
    click_and_wait(page, first)
    assert page.locator("g.node").count() > closed
    assert scale in place(page)
    sync_api.expect(page.get_by_text("parameter gradients")).to_be_visible()
    click_and_wait(page, page.locator("g.cluster.chosen text"))
    assert page.locator("g.node").count() == closed


def test_an_operation_shows_its_details(page: sync_api.Page, address: str) -> None:
    open_graph(page, address, "hostile")
    addmm = page.locator("g.node", has_text="AddmmBackward0").first
    addmm.click()
    sync_api.expect(page.get_by_text("gradient norm")).to_be_visible()
    sync_api.expect(page.get_by_text("Saved tensors")).to_be_visible()
    sync_api.expect(addmm).to_have_class(re.compile("chosen"))


def test_hostile_names_are_shown_as_they_are(page: sync_api.Page, address: str) -> None:
    open_graph(page, address, "hostile")
    sync_api.expect(page.locator("g.cluster", has_text=HOSTILE).last).to_be_visible()
    assert page.locator(".autograd-graph img").count() == 0
    assert page.locator("g.node").count() == 9


def test_a_thousand_time_steps_are_one_box(page: sync_api.Page, address: str) -> None:
    open_graph(page, address, "unrolled")
    cell = page.locator("g.fold", has_text="RNNCell × 1000")
    sync_api.expect(cell).to_have_count(1)
    click_and_wait(page, cell)
    sync_api.expect(page.locator("g.fold", has_text="call 0 … call 99")).to_have_count(1)


def test_search_marks_what_holds_the_word(page: sync_api.Page, address: str) -> None:
    open_graph(page, address, "unrolled")
    page.get_by_label("Search the graph").fill("head.weight")
    sync_api.expect(page.locator("g.hit")).to_have_count(1)
    sync_api.expect(page.locator("g.hit")).to_contain_text("weight")


def test_pictures_and_texts_can_be_downloaded(page: sync_api.Page, address: str) -> None:
    open_graph(page, address, "stages")
    with page.expect_download() as svg:
        page.get_by_role("button", name="SVG").click()
    text = Path(svg.value.path()).read_text("utf-8")
    assert text.count('class="node') == page.locator("g.node").count()
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as dot:
        page.get_by_role("button", name="DOT of this view").click()
    assert Path(dot.value.path()).read_text("utf-8").startswith("digraph autograd")
    with page.expect_download() as torchviz:
        page.get_by_role("button", name="torchviz's own DOT").click()
    assert "AccumulateGrad" in Path(torchviz.value.path()).read_text("utf-8")


def test_too_slow_a_layout_is_ended_and_folded_further(page: sync_api.Page, address: str) -> None:
    # The worker answers the first request never, as a layout without end would.
    page.route("**/graph-worker.js", lambda route: route.fulfill(
        content_type="text/javascript",
        body="postMessage({ready: true}); onmessage = () => { for (;;); }",
    ), times=1)  # fmt: skip
    page.goto(f"{address}/?run=stages")
    page.wait_for_selector(".autograd-graph[data-shown]", timeout=PICTURE_MS)
    assert page.locator("g.node").count() < 10
