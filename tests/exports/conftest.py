"""Runs to export: one that was trained, and one whose every number is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import record

from inspector.config import RunConfig
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.training import runner


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = create_run(tmp_path_factory.mktemp("known"), "known", {"kind": "watched"})
    for rank in (0, 1):
        record(path, rank)
    return path


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = create_run(tmp_path_factory.mktemp("known"), "single", {"kind": "watched"})
    record(path, 0)
    return path


class Trained:
    """Trains a configuration once a session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, str] = {}

    def __call__(self, model: str, data: str, **settings: Any) -> Run:
        asked = f"{model} {data} {settings}"
        if asked not in self._names:
            settings = {"steps": 12, "device": "cpu", **settings}
            config = RunConfig(model=model, data=data, **settings)
            self._names[asked] = runner.start(config, self.folder)
            assert runner.join(60)
        run = Run(self.folder / self._names[asked])
        assert run.status == "finished", [one.event.text for one in run.events()]
        return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    yield Trained(tmp_path_factory.mktemp("trained"))
