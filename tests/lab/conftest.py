"""One warm sandbox for all tests of the lab."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from inspector.lab.sandbox import Limits, Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    os.environ["SECRET_OF_MINE"] = "not for the lecture's screen"
    made = Sandbox(Limits(seconds=30))
    yield made
    made.close()
    del os.environ["SECRET_OF_MINE"]
