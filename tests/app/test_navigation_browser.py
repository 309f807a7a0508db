"""Every page is one click away on a projector: no title hides behind "more"."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.ui.shell import PAGES
from tests.app.server import App
from tests.app.tab import open_tab

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("mode", ["", "?presenter=1"])
def test_all_pages_stand_in_one_row_at_1280_pixels(chromium: Any, app: App, mode: str) -> None:
    tab = open_tab(chromium, app.base, width=1280, height=800)
    try:
        tab.visit(app.link)
        tab.visit(f"start{mode}")
        links = tab.page.get_by_test_id("stTopNavLink")
        titles = [title for title, _ in PAGES.values()]
        more = tab.page.get_by_test_id("stTopNavSection")
        tab.until(lambda: not more.count() and links.all_inner_texts() == titles)
        menu = tab.page.get_by_test_id("stMainMenu").bounding_box()
        last = links.last.bounding_box()
        assert last["x"] + last["width"] < menu["x"]
        tops = {round(link.bounding_box()["y"]) for link in links.all()}
        assert len(tops) == 1
    finally:
        tab.close()
