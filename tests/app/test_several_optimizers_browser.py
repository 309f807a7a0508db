"""Several optimizers in the browser: one is steered, the other is left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import inspector
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


class Gan:
    """Trains a generator and a discriminator in a thread until it is told to stop."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"generator": nn.Linear(4, 4), "discriminator": nn.Linear(4, 1)})
        self.optimizers = [
            torch.optim.Adam(self.model["discriminator"].parameters(), lr=2e-4),
            torch.optim.Adam(self.model["generator"].parameters(), lr=1e-4),
        ]
        self.folder = folder
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._train, daemon=True)

    @property
    def rates(self) -> list[float]:
        return [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]

    def _train(self) -> None:
        with inspector.watch(self.model, self.optimizers, run_dir=self.folder, name="gan") as watch:
            while not watch.should_stop:
                made = self.model["generator"](torch.randn(8, 4))
                loss = self.model["discriminator"](made).square().mean()
                watch.record(loss=loss)
                for optimizer in self.optimizers:
                    optimizer.zero_grad()
                loss.backward()
                for optimizer in self.optimizers:
                    optimizer.step()
                self.ready.set()
                time.sleep(0.01)


@pytest.fixture
def gan(app: App) -> Iterator[Gan]:
    made = Gan(app.runs_dir)
    made.thread.start()
    assert made.ready.wait(30)
    yield made
    app.still()
    made.thread.join(30)


def test_the_generators_rate_alone_is_set_and_everything_says_so(tab: Tab, gan: Gan) -> None:
    tab.visit("live?run=gan")
    tab.status("Running")
    sidebar = tab.page.get_by_test_id("stSidebar")
    tab.until(sidebar.get_by_text("discriminator · Adam 0.0002, generator · Adam 0.0001"))
    tab.choose("Settings of", "generator · Adam")
    exact = tab.page.get_by_label("Learning rate, exactly", exact=True)
    tab.until(lambda: exact.count() == 1 and exact.input_value() == "0.0001")
    tab.rest()
    tab.fill("Learning rate, exactly", "0.003", lambda: gan.rates == [2e-4, 3e-3])
    tab.chip(r"generator · Adam\s+lr 0\.003").wait_for()
    rates = tab.page.locator(".card.line", has=tab.page.locator("h3", has_text="Learning rate"))
    tab.until(rates.get_by_text("generator · Adam"))
    tab.until(lambda: "0.003" in rates.inner_text() and "2e−4" in rates.inner_text())

    tab.choose("Settings of", "All optimizers")
    tab.until(lambda: exact.count() == 1 and exact.input_value() == "0.0002")
    tab.rest()
    kept = pytest.approx([4e-4, 6e-3])
    tab.fill("Learning rate, exactly", "0.0004", lambda: gan.rates == kept)
    tab.until(lambda: tab.chip("generator").count() == 0)
    tab.go("Events")
    said = "generator · Adam 0.003 → 0.006; each × 2, so ratios are kept"
    tab.until(tab.page.locator(".events .words", has_text=said))
