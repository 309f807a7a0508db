"""A tab that fails the test when anything was refused or went wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
    tab.on("console", lambda m: problems.append(m.text) if "Security Policy" in m.text else None)
    yield tab
    context.close()
    assert problems == []
