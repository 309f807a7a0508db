"""A tab that fails the test when anything was refused or went wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.tab import Tab


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = Tab(context.new_page(), address)
    problems = opened.errors
    opened.page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
    opened.page.on(
        "console", lambda m: problems.append(m.text) if "Security Policy" in m.text else None
    )
    yield opened
    opened.close()
    assert problems == []
