"""Limits and rules of one's own: in the API, on the command line, and on the Findings page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.diagnosis import diagnose
from inspector.diagnosis.command import diagnose_command
from inspector.diagnosis.limits import FILE, read_limits, write_limits
from inspector.diagnosis.registry import unregister
from inspector.errors import ConfigError
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import open_run
from inspector.store.writer import Writer
from tests.app.in_process import open_page

KEYS = (SeriesKey("loss"), SeriesKey("total_update_ratio"), SeriesKey("lr"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = create_run(tmp_path, "run", {"kind": "watched", "config": {}})
    writer = Writer(path)
    for step in range(30):
        writer.append("scalar", step, KEYS, [2.3 * 1.1**step, 0.05, 1.0])
    writer.close()
    return path


def codes(path: Path) -> set[str]:
    with open_run(path) as opened:
        return {found.code for found in diagnose(opened) if found.level != "note"}


def test_limits_beside_the_runs_hold_for_each_of_them(run: Path) -> None:
    assert codes(run) == {"lr_too_high"}
    write_limits(run.parent, {"lr_too_high.moving": 0.2, "lr_too_high.far": 0.2})
    assert read_limits(run.parent) == {"lr_too_high.far": 0.2, "lr_too_high.moving": 0.2}
    assert codes(run) == set()
    write_limits(run.parent, {})
    assert codes(run) == {"lr_too_high"}


@pytest.mark.parametrize(
    "text", ["no json", "[1]", '{"lr_too_high.moving": "x"}', '{"lr_too_high.moving": NaN}',
             '{"no.such": 1}']
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(text: str, run: Path) -> None:
    (run.parent / FILE).write_text(text)
    with open_run(run) as opened, pytest.raises(ConfigError, match=r"diagnosis\.json|threshold"):
        diagnose(opened)


def test_the_command_takes_limits_and_rules(run: Path, tmp_path: Path) -> None:
    quiet = ["lr_too_high.moving=0.2", "lr_too_high.far=0.2"]
    assert diagnose_command(run, print) == 1
    assert diagnose_command(run, print, changed=quiet) == 0
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from inspector.diagnosis import Finding, register\n"
        "@register('mine', least=2.0)\n"
        "def mine(run, limits):\n"
        "    if run.loss.values[0] > limits['least']:\n"
        "        yield Finding(code='mine', level='critical', title='Mine.', confidence=1.0)\n"
    )
    lines: list[str] = []
    try:
        changed = [*quiet, "mine.least=1"]
        assert diagnose_command(run, lines.append, changed=changed, rules=[mine], as_json=True) == 1
    finally:
        unregister("mine")
    assert "mine" in {found["code"] for found in json.loads("\n".join(lines))["findings"]}
    with pytest.raises(ConfigError, match=r"code\.name=number"):
        diagnose_command(run, print, changed=["lr_too_high.moving"])
    with pytest.raises(ConfigError, match="there is none at"):
        diagnose_command(run, print, rules=[tmp_path / "none.py"])


def page() -> None:
    from inspector.ui.findings_page import findings_page

    findings_page()


@pytest.fixture
def app(run: Path) -> AppTest:
    return open_page(run.parent, page, run=run.name)


def test_the_page_goes_back_to_the_defaults(app: AppTest, run: Path) -> None:
    write_limits(run.parent, {"lr_too_high.moving": 0.2, "lr_too_high.far": 0.2})
    app.run()
    assert not app.exception
    assert not any("Learning rate too high" in element.value for element in app.markdown)
    app.button(key="limits-reset").click().run()
    assert not (run.parent / FILE).exists()
    assert any("Learning rate too high" in element.value for element in app.markdown)


def test_a_broken_file_is_said_and_the_page_goes_on(app: AppTest, run: Path) -> None:
    (run.parent / FILE).write_text("{")
    app.run()
    assert not app.exception
    assert any("Expected JSON" in element.value for element in app.error)
    assert any("Learning rate too high" in element.value for element in app.markdown)
