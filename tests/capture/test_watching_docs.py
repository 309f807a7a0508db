"""The script in docs/watching.md runs, and is stopped and steered from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import inspector
from inspector.commands import Command
from inspector.events import CommandApplied
from inspector.store.control import ControlWriter

DOCUMENT = Path(__file__).parents[2] / "docs" / "watching.md"


def test_the_documented_script_is_steered_from_outside(tmp_path: Path) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    endless = code.replace("range(200)", "range(10**9)")
    assert endless != code
    process = subprocess.Popen([sys.executable, "-c", endless], cwd=tmp_path)
    try:
        path = tmp_path / "runs" / "mine"
        deadline = time.monotonic() + 60
        while not (path / "rank00000.db").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        control = ControlWriter(path)
        control.send(Command(name="set", control="lr", value=0.02))
        control.send(Command(name="stop"))
        control.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
    with inspector.open_run(path) as run:
        applied = [s.event for s in run.events() if isinstance(s.event, CommandApplied)]
        assert [(e.name, e.effective) for e in applied] == [("lr", 0.02), ("stop", None)]
        assert run.status == "stopped"
