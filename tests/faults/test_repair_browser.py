"""A person meets a NaN, repairs a vanishing gradient, breaks a model and finds a learning rate."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

import inspector
from inspector.store.reader import list_runs
from tests.app.server import App
from tests.app.tab import PATIENCE, Tab

pytestmark = pytest.mark.browser


def newest(app: App) -> inspector.Run:
    return inspector.open_run(list_runs(app.runs_dir)[0].path)


def start(tab: Tab, preset: str, heading: str) -> str:
    tab.go("Start")
    card = tab.page.locator(f".st-key-card-{preset} button").first
    card.wait_for()
    if card.is_enabled():  # that of the preset which is chosen already is not
        tab.click(card, tab.page.get_by_role("heading", name=re.compile(heading)))
    return tab.start()


def test_a_nan_shows_on_every_page_names_op_module_and_line_and_training_goes_on(
    tab: Tab, app: App, tmp_path: Path
) -> None:
    app.full_speed(start(tab, "nan", "Log trap"))
    banner = tab.page.locator(".strip .banner:not([hidden])", has_text="score")
    tab.until(banner, "the banner", 3 * PATIENCE)
    assert re.search(r"Step \d+: Non-finite .* of score", banner.inner_text())
    tab.go("Gradients")
    banner.wait_for()
    tab.go("Live")
    tab.page.locator(".card canvas").first.wait_for()
    card = tab.page.locator(".st-key-nan-card")
    card.wait_for()
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
    script = tab.button("Script and state that reproduce it")
    assert zipfile.is_zipfile(tab.download(script, tmp_path))
    tab.command(app, tab.button("Skip this batch and go on"))
    tab.wait_for_step(before + 1)
    tab.stop()


def test_a_vanishing_gradient_is_explained_fixed_by_a_button_and_recovers(
    tab: Tab, app: App
) -> None:
    start(tab, "vanishing", "Deep sigmoid net")
    tab.go("Findings")
    card = tab.page.locator("[class*=st-key-finding-vanishing_gradient]").first
    tab.until(card, "the finding", 3 * PATIENCE)
    card.get_by_text("derivative").first.wait_for()
    again = card.get_by_role("button", name=re.compile("Re-initialise all modules"))
    tab.command(app, again)
    recovered = tab.page.get_by_text(re.compile("Re-initialise all modules .*recovered"))
    tab.until(recovered, "the verdict", 3 * PATIENCE)
    with newest(app) as run:
        (verdict,) = [s.event for s in run.events() if s.event.kind == "remedy_verdict"]
        assert verdict.after > 100 * verdict.before
    tab.stop()


def test_the_class_guesses_a_hidden_fault_and_it_is_healed(tab: Tab, app: App) -> None:
    start(tab, "digits-mlp", "Multilayer perceptron")
    tab.go("Break it")
    fault = tab.page.locator(".st-key-fault-1")
    tab.command(app, tab.button("Bias −10"))
    fault.get_by_text("hidden: what is it?").wait_for()
    assert "bias" not in fault.inner_text().lower()
    tab.command(app, tab.button("Reveal"))
    fault.filter(has_text="bias −10").wait_for()
    tab.command(app, tab.button("Heal"))
    fault.filter(has_text="healed at step").wait_for()
    with newest(app) as run:
        kinds = [stored.event.kind for stored in run.events()]
    assert [k for k in kinds if k.startswith("fault_")] == [
        "fault_injected", "fault_revealed", "fault_healed",
    ]  # fmt: skip


def test_the_finder_draws_its_curve_and_its_suggestion_is_applied(tab: Tab, app: App) -> None:
    tab.go("Findings")
    tab.command(app, tab.button("Find a learning rate"))
    apply = tab.page.locator(".st-key-lr-apply button")
    apply.wait_for()
    wanted = float(apply.inner_text().rpartition(" ")[2])
    tab.command(app, apply)
    tab.chip(rf"lr\s+{wanted:.4g}").wait_for()
    tab.stop()


def test_nothing_has_failed(app: App) -> None:
    assert "Traceback" not in app.log.read_text()
