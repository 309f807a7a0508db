"""Speed on the Live page: waiting for data, and samples a second that agree with the strip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.training import runner
from tests.app.server import App
from tests.app.test_pages import on_page, serving

WAIT = 30_000


def recorded(folder: Path, name: str, kind: str, share: float | None) -> None:
    """A run of twenty steps of 40 ms, that share of it waiting for data."""
    config = RunConfig().to_dict() if kind == "built_in" else {}
    writer = Writer(create_run(folder, name, {"kind": kind, "config": config}))
    for step in range(20):
        row = {"loss": 1.0, "step_time": 0.04}
        if share is not None:
            row["data_seconds"] = share * 0.04
        writer.append("scalar", step, tuple(map(SeriesKey, row)), list(row.values()))
    writer.close()


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed") / "runs"
    recorded(folder, "waits", "built_in", 0.75)
    recorded(folder, "computes", "built_in", 0.1)
    recorded(folder, "script", "watched", None)
    return folder


@pytest.fixture
def app(runs_dir: Path) -> Iterator[AppTest]:
    yield from serving(runs_dir)


def said(app: AppTest) -> str:
    return "\n".join(str(info.value).replace("\\", "") for info in app.info)


def opened(app: AppTest, run: str) -> list[str]:
    """Captions of the Live page with the panel unfolded."""
    on_page(app, "live", run)
    app.session_state[f"speed/{run}"] = True
    app.run()
    assert not app.exception
    return [str(caption.value) for caption in app.caption]


def test_waiting_that_dominates_is_said_with_what_to_do(app: AppTest) -> None:
    on_page(app, "live", "waits")
    assert "75% of the last 20 steps' time went into waiting for data: 30 ms a step" in said(app)
    assert "workers: 2 or more" in said(app)


def test_waiting_that_does_not_matter_is_not_mentioned(app: AppTest) -> None:
    on_page(app, "live", "computes")
    assert "waiting for data" not in said(app)


def test_what_is_measured_is_said_under_the_chart(app: AppTest) -> None:
    assert any("from asking the loader to having them" in text for text in opened(app, "waits"))


def test_a_script_that_does_not_measure_it_is_told_how(app: AppTest) -> None:
    assert any("n/a" in text and "watch.batches(loader)" in text for text in opened(app, "script"))


@pytest.mark.browser
def test_card_and_strip_read_samples_off_the_clock_and_agree(chromium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    slow = Controls(max_steps_per_s=5.0)
    runner.start(RunConfig(controls=slow, torch_threads=1), folder, name="slow")
    app = App(folder)
    context = chromium.new_context(viewport={"width": 1600, "height": 800})
    try:
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(app.link)
        page.get_by_role("link", name="Live", exact=True).first.click()
        card = page.locator(".card.number", has_text="Samples per second").locator(".value")
        strip = page.locator(".strip .fact", has_text="samples/s").locator("b")
        card.wait_for()
        pairs = []
        for _ in range(WAIT // 250):
            pairs.append((digits(card.inner_text()), digits(strip.inner_text())))
            # Five steps a second of 64 samples, 29 in the last of an epoch's 23.
            if len(pairs) > 3 and all(250 < value < 330 for value in pairs[-1]):
                break
            page.wait_for_timeout(250)
        assert pairs[-1][0] == pytest.approx(pairs[-1][1], rel=0.03), pairs
        assert 250 < pairs[-1][0] < 330, pairs
        page.get_by_text("Speed and waiting for data").click()
        chart = page.locator(".card.line", has=page.locator("h3", has_text="Time of a step"))
        chart.locator(".legend b").nth(1).wait_for()
        assert re.search(r"waiting for data\s*[\d.]+ (µs|ms)", chart.inner_text())
    finally:
        context.close()
        app.close()
        runner.stop()


def digits(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text) or "nan")
