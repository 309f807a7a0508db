"""Watching for long, and watching much: memory stays, and 10,000 parameters are as unharmed."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import psutil
import pytest
import torch
from breadth import prove, prove_unchanged
from torch import Tensor, nn
from zoo import ZOO, Case, mlp, plain_loop

import inspector

STEPS = 2000
SETTLED = 600  # past discovery, the first bursts of the structure probe, and full buffers
ROOM = 1 << 20


@pytest.mark.parametrize("collecting", [True, False], ids=["gc on", "gc off"])
def test_two_thousand_steps_do_not_grow(tmp_path: Path, collecting: bool) -> None:
    torch.manual_seed(0)
    model = mlp()
    built = plain_loop(model)
    process = psutil.Process()
    with inspector.watch(model, built.optimizers, run_dir=tmp_path, every=1) as watch:

        def steps(count: int) -> None:
            for _ in range(count):
                watch.record(loss=built.iterate().detach())

        def held() -> tuple[int, int]:
            assert watch._recorder.writer.flush(60)
            return tracemalloc.get_traced_memory()[0], process.memory_info().rss

        tracemalloc.start()
        steps(SETTLED)
        if not collecting:
            gc.collect()
            gc.disable()
        try:
            before = held()
            steps(STEPS)
            after = held()
        finally:
            gc.enable()
            tracemalloc.stop()
    assert after[0] - before[0] < ROOM, "Python objects pile up"
    assert after[1] - before[1] < 24 * ROOM, "resident memory grows"


def test_tensors_do_not_pile_up_without_the_collector(tmp_path: Path) -> None:
    """Whole outputs kept alive for a few steps would exceed this at once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 8))
    built = plain_loop(model, shape=(64, 64))
    process = psutil.Process()
    with inspector.watch(model, built.optimizers, run_dir=tmp_path, every=1):
        for _ in range(40):
            built.iterate()
        gc.collect()
        gc.disable()
        try:
            before = process.memory_info().rss
            for _ in range(60):  # 60 outputs of the first module are 63 MB
                built.iterate()
            after = process.memory_info().rss
        finally:
            gc.enable()
    assert after - before < 32 * ROOM


class Many(nn.Module):
    """10,000 parameters in 5,000 modules, of which each step calls a hundred."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(2, 2) for _ in range(5000))
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        for part in list(self.parts)[self.turn : self.turn + 100]:
            x = x + part(x)
        self.turn = (self.turn + 100) % 5000
        return x


def many(model: nn.Module) -> Case:
    return plain_loop(model, torch.optim.SGD(model.parameters(), lr=1e-4), shape=(2, 2))


def test_ten_thousand_parameters_some_of_them_called(tmp_path: Path) -> None:
    prove_unchanged(lambda: many(Many()), tmp_path, steps=2)


@pytest.mark.slow
def test_ten_thousand_parameters_all_of_them_called(tmp_path: Path) -> None:
    prove(lambda: many(nn.Sequential(*(nn.Linear(2, 2) for _ in range(5000)))), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amp_plain", "gan", "packed_rnn", "checkpoint_non_reentrant"])
def test_odd_loops_do_not_grow_either(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = ZOO[name]()
    process = psutil.Process()
    with inspector.watch(
        case.model, case.optimizers, run_dir=tmp_path, every=1, scaler=case.scaler
    ):
        for _ in range(SETTLED):
            case.iterate()
        gc.collect()
        gc.disable()
        try:
            before = process.memory_info().rss
            for _ in range(STEPS):
                case.iterate()
            after = process.memory_info().rss
        finally:
            gc.enable()
    assert after - before < 24 * ROOM
