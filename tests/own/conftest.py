"""No test leaves a training thread behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_run_is_left() -> Iterator[None]:
    yield
    runner = sys.modules.get("inspector.training.runner")
    if runner is not None:
        if not runner.join(2):  # a run that is over may still be tidying up
            runner.stop()
        assert runner.join(60)
