"""A person meets a NaN, repairs a vanishing gradient, breaks a model and finds a learning rate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inspector
from inspector.store.reader import list_runs
from tests.app.server import App

pytestmark = pytest.mark.browser
SHORT = 40_000  # milliseconds a person on a busy two-core machine would still wait


def newest(app: App) -> inspector.Run:
    return inspector.open_run(list_runs(app.runs_dir)[0].path)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    served = App(tmp_path_factory.mktemp("repair") / "runs")
    yield served
    served.close()


@pytest.fixture(scope="module")
def page(chromium: Any, app: App) -> Iterator[Any]:
    context = chromium.new_context(
        viewport={"width": 1280, "height": 800},
        color_scheme=os.environ.get("INSPECTOR_SCHEME", "light"),
    )
    opened = context.new_page()
    opened.set_default_timeout(SHORT)
    opened.goto(app.link)
    yield opened
    context.close()


def start(page: Any, preset: str, heading: str) -> None:
    go(page, "Start")
    card = page.locator(f".st-key-card-{preset} button").first
    card.wait_for()
    if card.is_enabled():  # that of the preset which is chosen already is not
        card.click()
    page.get_by_role("heading", name=re.compile(heading)).wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")


def go(page: Any, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()


def stop(page: Any) -> None:
    page.get_by_role("button", name="Stop").first.click()
    page.locator(".strip .badge:has-text('Stopped')").wait_for()


def look(page: Any, name: str) -> None:
    """A picture for the eyes of whoever asks for it."""
    if folder := os.environ.get("INSPECTOR_PICTURES"):
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_a_nan_names_op_module_file_and_line_and_training_goes_on(page: Any, app: App) -> None:
    start(page, "nan", "Log trap")
    card = page.locator(".st-key-nan-card")
    card.wait_for(timeout=3 * SHORT)
    text = card.inner_text()
    assert "log" in text and "score (LogScore)" in text
    assert re.search(r"log_trap\.py:13", text)
    card.locator("code", has_text="return torch.log(1 + x)").wait_for()
    assert "held back" in text
    with newest(app) as run:
        assert run.config["controls"]["detect_anomaly"] is False
        found = next(finding for finding in run.findings() if finding.code == "nonfinite")
        assert (found.op, found.module, found.line) == ("log", "score", 13)
        assert Path(found.file).name == "log_trap.py"
        before = run.heartbeat.step
    look(page, "nan")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Script and state that reproduce it").click()
    assert waiting.value.suggested_filename.endswith(".zip")
    page.get_by_role("button", name="Skip this batch and go on").click()
    page.wait_for_function(
        """before => {
            const roots = [...document.querySelectorAll('*')].map(e => e.shadowRoot)
            const strip = roots.map(r => r?.querySelector('.strip .steps')).find(Boolean)
            return Number(strip?.textContent.split('/')[0].replace(/\\D/g, '')) > before
        }""",
        arg=before,
    )
    stop(page)


def test_a_vanishing_gradient_is_explained_fixed_by_a_button_and_recovers(
    page: Any, app: App
) -> None:
    start(page, "vanishing", "Deep sigmoid net")
    go(page, "Findings")
    card = page.locator("[class*=st-key-finding-vanishing_gradient]").first
    card.wait_for(timeout=3 * SHORT)
    card.get_by_text("derivative").first.wait_for()
    look(page, "vanishing")
    card.get_by_role("button", name=re.compile("Re-initialise all modules")).click()
    page.get_by_text(re.compile("Re-initialise all modules .*recovered")).first.wait_for(
        timeout=3 * SHORT
    )
    look(page, "recovered")
    with newest(app) as run:
        (verdict,) = [s.event for s in run.events() if s.event.kind == "remedy_verdict"]
        assert verdict.after > 100 * verdict.before
    stop(page)


def test_the_class_guesses_a_hidden_fault_and_it_is_healed(page: Any, app: App) -> None:
    start(page, "digits-mlp", "Multilayer perceptron")
    page.goto(f"{app.link.partition('?')[0].rstrip('/')}/break_it")  # the row of pages is long
    page.get_by_role("button", name="Bias −10").click()
    page.get_by_text("hidden: what is it?").wait_for()
    assert "bias" not in page.locator(".st-key-fault-1").inner_text().lower()
    look(page, "broken")
    page.get_by_role("button", name="Reveal").click()
    page.locator(".st-key-fault-1", has_text="bias −10").wait_for()
    look(page, "revealed")
    page.get_by_role("button", name="Heal").click()
    page.locator(".st-key-fault-1", has_text="healed at step").wait_for()
    with newest(app) as run:
        kinds = [stored.event.kind for stored in run.events()]
    assert [k for k in kinds if k.startswith("fault_")] == [
        "fault_injected", "fault_revealed", "fault_healed",
    ]  # fmt: skip


def test_the_finder_draws_its_curve_and_its_suggestion_is_applied(page: Any) -> None:
    go(page, "Findings")
    page.get_by_role("button", name="Find a learning rate").click()
    apply = page.locator(".st-key-lr-apply button")
    apply.wait_for()
    look(page, "finder")
    wanted = float(apply.inner_text().rpartition(" ")[2])
    apply.click()
    page.locator(".strip .chip", has_text=re.compile(rf"lr\s+{wanted:.4g}")).wait_for()
    stop(page)


def test_nothing_has_failed(app: App) -> None:
    assert "Traceback" not in app.log.read_text()
