"""The overhead table as dots: drawn by Plotly in Chromium, written as SVG."""

from __future__ import annotations

import base64
import shutil
import urllib.parse
from pathlib import Path

import plotly.graph_objects as go

LIMIT = 1.15
LEAST = 1.005  # what cannot be told from nothing is drawn here
_COLORS = ("#1f6feb", "#d29922", "#8250df", "#1a7f37", "#cf222e")


def figure(results: dict[str, dict[str, float | None]]) -> go.Figure:
    """A row for each contender, a dot for each model: ``results[contender][model]`` is the ratio.

    The axis is logarithmic in what is added to the step time, in percent.
    """
    made = go.Figure()
    models = list(next(iter(results.values())))
    for model, color in zip(models, _COLORS, strict=False):
        there = {name: ratios[model] for name, ratios in results.items()}
        shown = {name: max(LEAST, ratio) for name, ratio in there.items() if ratio is not None}
        made.add_scatter(
            name=model, x=[100 * (ratio - 1) for ratio in shown.values()], y=list(shown),
            mode="markers", marker={"color": color, "size": 11, "opacity": 0.85},
        )  # fmt: skip
    limit = 100 * (LIMIT - 1)
    made.add_vline(x=limit, line_dash="dot", line_color="#57606a")
    ticks = [1, 3, 10, 30, 100, 300, 1000, 3000, 10000]
    made.update_xaxes(
        type="log", title="added to the step time", tickvals=ticks, gridcolor="#d0d7de",
        ticktext=[f"{tick} %" for tick in ticks],
    )  # fmt: skip
    made.update_yaxes(categoryarray=list(reversed(results)), categoryorder="array")
    made.update_layout(
        template="plotly_white", width=1000, height=120 + 32 * len(results),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 40, "b": 50},
        font={"family": "sans-serif", "size": 13},
    )  # fmt: skip
    return made


def write_svg(results: dict[str, dict[str, float | None]], path: Path) -> None:
    """Writes the figure.

    Raises:
        RuntimeError: no Chromium on the PATH.
    """
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if chromium is None:
        raise RuntimeError("Expected Chromium on the PATH to draw the plot; install chromium.")
    page_text = figure(results).to_html(include_plotlyjs=True, full_html=True, div_id="plot")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(page_text)
        url = page.evaluate("Plotly.toImage('plot', {format: 'svg'})")
        browser.close()
    head, _, body = url.partition(",")
    svg = base64.b64decode(body) if "base64" in head else urllib.parse.unquote(body).encode()
    path.write_bytes(svg)
