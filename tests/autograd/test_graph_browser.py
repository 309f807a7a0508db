"""The graph page in a real Chromium, behind the app's own content security policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.app.tab import Tab
from tests.autograd.graph_pages import click_and_wait, open_graph, place, record, served

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


def scale_of(tab: Tab) -> str:
    found = re.search(r"scale\([\d.]+\)", place(tab))
    assert found is not None
    return found.group()


def test_a_fold_opens_and_closes_by_click_and_the_zoom_stays(tab: Tab) -> None:
    open_graph(tab, "stages")
    closed = tab.page.locator("g.node").count()
    before = scale_of(tab)
    tab.press("+", lambda: scale_of(tab) != before)
    scale = scale_of(tab)
    first = tab.page.locator("g.fold", has_text="Sequential").first
    click_and_wait(tab, first)
    assert tab.page.locator("g.node").count() > closed
    assert scale in place(tab)
    sync_api.expect(tab.page.get_by_text("parameter gradients")).to_be_visible()
    click_and_wait(tab, tab.page.locator("g.cluster.chosen text"))
    assert tab.page.locator("g.node").count() == closed


def test_an_operation_shows_its_details(tab: Tab) -> None:
    open_graph(tab, "hostile")
    addmm = tab.page.locator("g.node", has_text="AddmmBackward0").first
    addmm.click()
    sync_api.expect(tab.page.get_by_text("gradient norm")).to_be_visible()
    sync_api.expect(tab.page.get_by_text("Saved tensors")).to_be_visible()
    sync_api.expect(addmm).to_have_class(re.compile("chosen"))


def test_hostile_names_are_shown_as_they_are(tab: Tab) -> None:
    open_graph(tab, "hostile")
    sync_api.expect(tab.page.locator("g.cluster", has_text=HOSTILE).last).to_be_visible()
    assert tab.page.locator(".autograd-graph img").count() == 0
    assert tab.page.locator("g.node").count() == 9


def test_a_thousand_time_steps_are_one_box(tab: Tab) -> None:
    open_graph(tab, "unrolled")
    cell = tab.page.locator("g.fold", has_text="RNNCell × 1000")
    sync_api.expect(cell).to_have_count(1)
    click_and_wait(tab, cell)
    sync_api.expect(tab.page.locator("g.fold", has_text="call 0 … call 99")).to_have_count(1)


def test_search_marks_what_holds_the_word(tab: Tab) -> None:
    open_graph(tab, "unrolled")
    tab.page.get_by_label("Search the graph").fill("head.weight")
    sync_api.expect(tab.page.locator("g.hit")).to_have_count(1)
    sync_api.expect(tab.page.locator("g.hit")).to_contain_text("weight")


def test_pictures_and_texts_can_be_downloaded(tab: Tab, tmp_path: Path) -> None:
    open_graph(tab, "stages")
    text = tab.download(tab.button("SVG"), tmp_path).read_text("utf-8")
    assert text.count('class="node') == tab.page.locator("g.node").count()
    dot = tab.button("DOT of this view")
    tab.press("Download", dot)
    assert tab.download(dot, tmp_path).read_text("utf-8").startswith("digraph autograd")
    torchviz = tab.button("torchviz's own DOT")
    assert "AccumulateGrad" in tab.download(torchviz, tmp_path).read_text("utf-8")


def test_too_slow_a_layout_is_ended_and_folded_further(tab: Tab) -> None:
    # The worker answers the first request never, as a layout without end would.
    tab.page.route("**/graph-worker.js", lambda route: route.fulfill(
        content_type="text/javascript",
        body="postMessage({ready: true}); onmessage = () => { for (;;); }",
    ), times=1)  # fmt: skip
    open_graph(tab, "stages")
    assert tab.page.locator("g.node").count() < 10
