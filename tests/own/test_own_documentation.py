"""Every example of docs/your-own.md, copied and run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspector import cli
from inspector.config import TASKS
from inspector.store.reader import list_runs

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "your-own.md").read_text("utf-8")
COMMANDS = re.findall(r"^torch-inspector (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in re.findall(r"```\w+ (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_example_trains(command: str, examples: Path) -> None:
    result = CliRunner().invoke(cli.app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (run,) = list_runs(examples / "runs")
    assert run.status == "finished"


def test_every_task_is_explained() -> None:
    assert [task for task in TASKS if f"`{task}`" not in PAGE] == []
    assert len(COMMANDS) == 7
