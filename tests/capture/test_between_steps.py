"""What is still noticed between two full measurements, and what is said about late gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from listening import observe, values
from torch import nn
from zoo import ZOO, plain_loop

import inspector
from inspector.events import NonFinite, Notice


def test_a_nan_between_two_full_steps_is_named_at_the_next_step() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    observer, listening = observe(plain_loop(model, optimizer), every=1000)
    for step in range(8):
        if step == 5:
            with torch.no_grad():
                model[2].weight[0, 0] = torch.nan
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6)).square().mean()
        observer.record({"loss": loss})
        loss.backward()
        optimizer.step()
    observer.close()
    onsets = {row.step: row.onset for row in listening.rows if row.onset is not None}
    assert onsets[5].where == "loss"
    # By then the optimizer has spread it over all parameters: the first module has it.
    assert (onsets[6].where, onsets[6].module) == ("activation", "0")
    assert list(onsets) == [5, 6]
    assert [row.step for row in listening.rows if row.full][:2] == [0, 6]


@pytest.mark.parametrize("name", ["ordinary", "accumulation", "inplace_residual"])
def test_sparse_measuring_gives_the_same_numbers(name: str) -> None:
    seen = []
    for every in (1, 3):
        torch.manual_seed(3)
        case = ZOO[name]()
        observer, listening = observe(case, every=every)
        for _ in range(7):
            case.iterate()
        observer.close()
        assert listening.failures == []
        seen.append({
            row.step: {**values(row.parameters), **values(row.modules)} for row in listening.rows
        })  # fmt: skip
    for step in (0, 3, 6):
        assert seen[0][step] == seen[1][step]


def test_gradients_that_are_seen_late_are_labelled(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="late", every=1):
        for _ in range(3):
            optimizer.zero_grad()
            output = nn.functional.linear(torch.randn(3, 4), model.weight, model.bias)
            output.sum().backward()
            optimizer.step()
    with inspector.open_run(tmp_path / "late") as run:
        notices = [e.event for e in run.events() if isinstance(e.event, Notice)]
        assert ["before the" in n.message for n in notices] == [True]
        assert run.document("parameters")["gradients_seen"] == "before_step"  # type: ignore[index]
        assert run.series("grad_norm", "weight").values[0] > 0


def test_the_cost_is_recorded_by_probe(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="cost", every=1) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(torch.randn(3, 4)).sum()
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
    with inspector.open_run(tmp_path / "cost") as run:
        series = [
            run.series(f"overhead_{probe}")
            for probe in ("forward", "gradients", "updates", "step", "time_machine", "structure")
        ]
        assert len({tuple(one.steps) for one in series}) == 1
        parts = [one.values[-1] for one in series]
        overhead = run.series("overhead")
        whole = overhead.values[list(overhead.steps).index(series[0].steps[-1])]
        assert all(part > 0 for part in parts)
        assert sum(parts) == pytest.approx(whole, rel=1e-3)
        assert not any(isinstance(e.event, NonFinite | Notice) for e in run.events())
