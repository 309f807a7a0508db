"""The whole of ``watch()`` on the zoo and on more loops: same bits, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from breadth import prove_unchanged
from test_unchanged import train
from zoo import ZOO


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_zoo_trains_as_if_unwatched(name: str, tmp_path: Path) -> None:
    if "scripted" in name:  # its first runs in a process differ: the JIT is still profiling
        train(ZOO[name](), 20)
    prove_unchanged(ZOO[name], tmp_path, steps=20)
