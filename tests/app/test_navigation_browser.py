"""Every page is one click away on a projector: no title hides behind "more"."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.ui.shell import PAGES
from tests.app.server import App
from tests.app.tab import open_tab

pytestmark = pytest.mark.browser

# Looked at in one moment: the row is laid out several times while the page comes. A title that
# does not fit is inert, somewhere, until it has moved behind "more".
_ROW = """() => {
  const menu = document.querySelector('[data-testid=stMainMenu]');
  const links = [...document.querySelectorAll('[data-testid=stTopNavLink]')]
    .filter(link => !link.closest('[inert]'));
  const boxes = links.map(link => link.getBoundingClientRect());
  return {
    titles: links.map(link => link.innerText),
    more: document.querySelectorAll('[data-testid=stTopNavSection]').length,
    rows: new Set(boxes.map(box => Math.round(box.y))).size,
    beforeMenu: !!menu && boxes.every(box => box.right < menu.getBoundingClientRect().left),
  };
}"""


@pytest.mark.parametrize("mode", ["", "?presenter=1"])
def test_all_pages_stand_in_one_row_at_1280_pixels(chromium: Any, app: App, mode: str) -> None:
    tab = open_tab(chromium, app.base, width=1280, height=800)
    titles = [title for title, _ in PAGES.values()]
    wanted = {"titles": titles, "more": 0, "rows": 1, "beforeMenu": True}
    try:
        tab.visit(app.link)
        tab.visit(f"start{mode}")
        tab.until(lambda: tab.page.evaluate(_ROW) == wanted, "one row of all pages")
    finally:
        tab.close()
