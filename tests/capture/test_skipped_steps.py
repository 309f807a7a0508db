"""Steps that a GradScaler leaves out: what it does normally, and a run that it cannot mend."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.capture.skips import Skipped, Skips
from inspector.commands import Command, Controls
from inspector.diagnosis.finding import Finding
from inspector.events import NonFinite, Origin, ProbeFailed, Rewound, StepSkipped
from inspector.store.reader import Run
from inspector.watching import Watch
from tests.runs import only

Fault = Callable[[int, nn.Module], float]


def nothing(_try: int, _model: nn.Module) -> float:
    return 1.0


def weights_lost(at: int, model: nn.Module) -> float:
    if at == 30:
        with torch.no_grad():
            model[2].weight[0, 0] = float("nan")  # type: ignore[index]
    return 1.0


class Loop:
    """A script's loop with a GradScaler; ``fault`` may change the model, and gives a factor."""

    def __init__(self, path: Path, **options: Any) -> None:
        torch.manual_seed(0)
        self.fused: bool = options.pop("fused", False)
        self.order: str = options.pop("order", "before")
        scale: float = options.pop("scale", 2.0**10)
        lr: float = options.pop("lr", 0.05)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, fused=self.fused)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.losses: list[float] = []
        self.watch: Watch = inspector.watch(
            self.model, self.optimizer, run_dir=path, name="run", **options
        )

    def run(self, tries: int, fault: Fault = nothing, *, begin: int = 0) -> Run:
        for at in range(begin, begin + tries):
            factor = fault(at, self.model)
            loss: Tensor = self.model(torch.randn(8, 6)).square().mean() * factor
            self.optimizer.zero_grad()
            if self.order == "before":
                self.watch.record(loss=loss)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.order == "after":
                self.watch.record(loss=loss)
            self.losses.append(loss.item())
        return self.stored

    @property
    def stored(self) -> Run:
        self.watch._recorder.writer.flush()
        return Run(self.watch.run_path)


def nonfinite(run: Run) -> list[Finding]:
    return [finding for finding in run.findings() if finding.code == "nonfinite"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("given", [False, True])
def test_weights_that_are_lost_are_told_while_the_run_goes_on(
    tmp_path: Path, fused: bool, order: str, given: bool
) -> None:
    loop = Loop(tmp_path, fused=fused, order=order)
    if given:
        loop.watch.close()
        loop = Loop(tmp_path / "given", fused=fused, order=order, scaler=None)
        loop.watch.close()
        loop.watch = inspector.watch(
            loop.model, loop.optimizer, run_dir=tmp_path / "given", scaler=loop.scaler
        )
    with loop.watch:
        run = loop.run(400, weights_lost)
        (told,) = only(run, NonFinite)
        assert (told.where, told.parameter) == ("parameter", "2.weight")
        (origin,) = only(run, Origin)
        assert (origin.op, origin.module, origin.module_type) == (
            "parameter 2.weight",
            "2",
            "Linear",
        )
        (finding,) = nonfinite(run)
        assert (finding.level, finding.module, finding.step) == ("critical", "2", 30)
        assert "the parameter 2.weight" in finding.title
        assert next((r.control, r.value) for r in finding.remedies) == ("on_nonfinite", "skip")
        skipped = only(run, StepSkipped)
        assert len(skipped) <= 16 + math.log2(400)
        assert skipped[-1].total >= 256 and skipped[-1].loss == "nan"
        assert not only(run, ProbeFailed)
    last = only(Run(loop.watch.run_path), StepSkipped)[-1]
    assert (last.in_a_row, last.total) == (370, 370)  # and none is forgotten
    assert math.isnan(Run(loop.watch.run_path).series("loss").values[-1])


@pytest.mark.parametrize("fused", [False, True])
def test_a_factor_that_is_too_high_is_how_a_scaler_begins(tmp_path: Path, fused: bool) -> None:
    loop = Loop(tmp_path, fused=fused, scale=2.0**127, lr=1e-6)
    with loop.watch:
        run = loop.run(60, lambda at, _: 1e4 if at < 20 else 1.0)
    run = Run(loop.watch.run_path)
    skipped = only(run, StepSkipped)
    assert skipped and skipped[0].scale in (2.0**127, None) and skipped[0].loss not in ("", "nan")
    assert only(run, NonFinite) == [] and nonfinite(run) == []


def test_one_bad_batch_is_told_and_no_step_is_blamed_for_its_loss(tmp_path: Path) -> None:
    for order in ("before", "after"):
        loop = Loop(tmp_path / order, order=order)
        with loop.watch:
            loop.run(40, lambda at, _: float("nan") if at == 20 else 1.0)
        run = Run(loop.watch.run_path)
        (stored,) = (s for s in run.events() if isinstance(s.event, NonFinite))
        assert stored.step == 20
        (finding,) = nonfinite(run)
        assert finding.level == "note"  # training goes on
        values = run.series("loss").values
        made = [loss for at, loss in enumerate(loop.losses) if at != 20]
        assert values.tolist() == pytest.approx(made, rel=1e-6)


def test_gradients_that_overflow_at_a_factor_of_one_are_past_mending(tmp_path: Path) -> None:
    """The loss is finite: only the backward pass is not."""
    loop = Loop(tmp_path)

    class Sharp(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_ctx: Any, grad: Tensor) -> Tensor:
            return grad * float("inf")

    loop.model.register_forward_hook(
        lambda _m, _a, out: Sharp.apply(out) if loop.watch.step >= 20 else out
    )
    with loop.watch:
        run = loop.run(30)
        assert only(run, NonFinite) == []  # 2**10 may be the reason yet
        run = loop.run(30, begin=30)
        (told,) = only(run, NonFinite)
        assert told.where in ("gradient", "backward")
        (finding,) = nonfinite(run)
        assert finding.level == "critical" and finding.step == 20
    beat = Run(loop.watch.run_path).heartbeat
    assert beat is not None and beat.facts["skipped"] == 40


@pytest.mark.parametrize("fused", [False, True])
def test_a_lost_run_goes_on_from_the_last_finite_weights(tmp_path: Path, fused: bool) -> None:
    loop = Loop(tmp_path, fused=fused)
    with loop.watch:
        loop.run(60, weights_lost)
        assert not all(p.isfinite().all() for p in loop.model.parameters())
        loop.watch.apply(Command(name="set", control="on_nonfinite", value="skip"))
        run = loop.run(40, begin=60)
        assert all(p.isfinite().all() for p in loop.model.parameters())
        assert len(only(run, Rewound)) == 1
        assert math.isfinite(loop.losses[-1])
    assert loop.watch.step >= 60


def test_a_pause_waits_for_a_person(tmp_path: Path) -> None:
    loop = Loop(tmp_path, controls=Controls(on_nonfinite="pause"))
    waited: list[int] = []
    pace = loop.watch._recorder.steering.pace

    def hold() -> None:
        if pace.paused:
            waited.append(loop.watch.step)
            loop.watch.apply(Command(name="resume"))

    loop.watch._recorder._boundary._hold = hold  # type: ignore[method-assign]
    with loop.watch:
        loop.run(32, weights_lost)
    assert waited == [30]  # the next skipped try is the last of the loop


def test_a_run_without_losses_is_told_of_as_well(tmp_path: Path) -> None:
    loop = Loop(tmp_path, order="never")
    with loop.watch:
        run = loop.run(60, weights_lost)
        (told,) = only(run, NonFinite)
        assert told.parameter == "2.weight"


def test_events_are_few_however_often_a_scaler_grows() -> None:
    skips, told = Skips(), 0
    for step in range(100_000):
        if step % 6 == 5:
            told += skips.add(Skipped(step, "x"))
            skips.told = skips.total if told else 0
        else:
            skips.made(step)
    assert skips.total == 16_666 and 16 <= told < 40


def test_the_scaler_is_given_back_and_copies_are_its_own(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.watch.close()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = dict(vars(scaler))
    watch = inspector.watch(loop.model, loop.optimizer, run_dir=tmp_path, scaler=scaler)
    assert "step" in vars(scaler)
    for other in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        weight = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        other.scale(weight.sum()).backward()
        other.step(optimizer)
        assert weight.item() == 0.0
        assert vars(other)["step"].__self__ is other
    watch.close()
    assert vars(scaler).keys() == before.keys()
