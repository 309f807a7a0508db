"""A child process that is asked: what it does when nobody waits for its answer any more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.config import RunConfig
from inspector.training.asking import ask

CHILD = "inspector.training.child"
CONFIG = RunConfig(steps=2).to_dict()


def test_a_run_that_nobody_waits_for_does_not_begin(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", CHILD, str(tmp_path), "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin and child.stdout and child.stderr
    child.stdout.close()  # the app was killed
    child.stdin.write(json.dumps(CONFIG).encode())
    child.stdin.close()
    assert child.wait(60) == 0, child.stderr.read()
    child.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_start_takes_the_child_along(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "run"]
    with pytest.raises(KeyboardInterrupt), ask(CHILD, arguments, CONFIG, apart=True) as child:
        raise KeyboardInterrupt
    assert child.process.returncode < 0
    assert list(tmp_path.iterdir()) == []


def test_the_last_line_of_a_child_that_died_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies.py").write_text("import sys\nsys.exit('Not today, é.')\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    with ask("dies", [], {}) as child:
        assert list(child) == []
        assert child.last_words() == "Not today, é."
        assert child.process.returncode == 1
