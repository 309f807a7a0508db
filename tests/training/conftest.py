"""Models of a user of ours, downloads, and waiting for runs without sleeping blindly."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspector import catalog
from inspector.store.reader import Run
from tests.file_server import files_served

WAIT_SECONDS = 60.0


@pytest.fixture
def user_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes the source of a class ``Mine`` the sample model ``mine``; the path of its file."""

    def make(source: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text("import torch\nfrom torch import nn\n" + source)
        spec = importlib.util.spec_from_file_location("sample_models.mine", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(sys.modules, "sample_models.mine", module)
        monkeypatch.setitem(
            catalog.MODELS, "mine", catalog.SampleModel("mine", "Mine", "Mine", "A user's own.")
        )
        return path

    return make


@pytest.fixture
def wait_for() -> Callable[[Path, str], Run]:
    """Waits until a run has a status, and opens it."""

    def wait(path: Path, *statuses: str) -> Run:
        end = time.monotonic() + WAIT_SECONDS
        run = Run(path)
        while run.status not in statuses:
            assert time.monotonic() < end, f"{run} is {run.status}"
            time.sleep(0.02)
        return run

    return wait


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    with files_served(folder) as address:
        yield folder, address


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads are kept during a test."""
    folder = tmp_path / "kept"
    monkeypatch.setenv("TORCH_INSPECTOR_DATA", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_run_is_left() -> Iterator[None]:
    """Each test leaves the process without a training thread."""
    yield
    runner = sys.modules.get("inspector.training.runner")
    if runner is not None:
        runner.stop()
        assert runner.join(WAIT_SECONDS)
