"""Presenter mode enlarges the root's type; what charts draw must follow it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inspector.lab.figures import figure
from inspector.server.assets import FOLDER

pytestmark = pytest.mark.browser


def test_what_is_drawn_on_canvases_takes_its_size_from_the_root(
    chromium: Any, tmp_path: Path
) -> None:
    page = chromium.new_page()
    source = (FOLDER / "theme.js").read_text("utf-8").replace("export function", "function")
    file = tmp_path / "theme.html"
    file.write_text(f"<!doctype html><div></div><script>{source}</script>", "utf-8")
    page.goto(file.as_uri())
    read = (
        "size => { document.documentElement.style.fontSize = size; "
        "const t = readTheme(document.querySelector('div')); return [t.scale, t.key] }"
    )
    plain, large = page.evaluate(read, "16px"), page.evaluate(read, "20px")
    assert (plain[0], large[0]) == (1, 1.25)
    assert plain[1] != large[1]  # charts are drawn anew when the key changes


def test_no_chart_has_type_of_a_fixed_size() -> None:
    assert not re.search(r"font(-size)?:[^;]*\dpx", (FOLDER / "live.css").read_text("utf-8"))
    for name in ("lines.js", "matrix.js"):
        fonts = re.findall(r"font = `([^`]*)`", (FOLDER / name).read_text("utf-8"))
        assert fonts
        assert all("scale" in font for font in fonts)


def test_figures_of_the_lab_grow_too() -> None:
    plot = {"kind": "lines", "title": "t", "series": {"a": [1, 2]}, "x": None, "x_title": "x",
            "y_title": "y", "log": False}  # fmt: skip
    plain, large = figure(plot), figure(plot, scale=1.25)
    assert large.layout.title.font.size == 1.25 * plain.layout.title.font.size
    assert large.layout.xaxis.tickfont.size == 1.25 * plain.layout.xaxis.tickfont.size
    assert large.layout.height > plain.layout.height
