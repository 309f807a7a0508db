"""The documentation is held against the code."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from inspector.ui.shell import PAGES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES_OF_DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_reference_lists_every_event_control_setting_and_quantity() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["reference"]()
    written = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert written == made, "run docs/make_reference.py"


def test_watch_example_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "train.py"
    script.write_text(block, "utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("finished")


def test_headless_commands_of_the_readme_work(tmp_path: Path) -> None:
    commands = re.findall(r"^uv run torch-inspector (.*)$", README, re.MULTILINE)
    assert commands
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "inspector.cli", *command.split()],
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda page: page.name)
def test_links_inside_the_documentation_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_tells_of_every_page() -> None:
    for title, _ in PAGES.values():
        assert f"**{title}**" in README, title


def test_every_dependency_has_its_line() -> None:
    listed = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    for requirement in (item for group in groups for item in group if isinstance(item, str)):
        name = re.split(r"[<>=\[ ]", requirement)[0]
        assert re.search(rf"\b{re.escape(name)}\b", listed, re.IGNORECASE), name
