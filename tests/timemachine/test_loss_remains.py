"""A loss that is finite and whose derivative is not: which of its operations, in which line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.events import NonFinite, Origin

BAD = 12
Criterion = Callable[[Tensor, bool], Tensor]


def distance_to_itself(outputs: Tensor, bad: bool) -> Tensor:
    left, right = outputs.chunk(2)
    right = left if bad else right
    return (left - right).square().sum(1).sqrt().mean()


def power(outputs: Tensor, bad: bool) -> Tensor:
    shifted = (outputs - outputs.detach() * bad).abs()
    return shifted.pow(0.3).mean() + outputs.pow(2).mean() + (outputs**2 + 1).pow(-0.5).mean() * 0


def angle(outputs: Tensor, bad: bool) -> Tensor:
    cosine = torch.cosine_similarity(outputs, outputs.detach() + (not bad), eps=0.0)
    return torch.acos(cosine.clamp(-1, 1) if not bad else cosine / cosine.detach()).mean()


def masked_logarithm(outputs: Tensor, bad: bool) -> Tensor:
    positive = outputs * (outputs > 0) + (not bad)
    logs = torch.log(positive)
    return torch.where(positive > 0, logs, torch.zeros_like(logs)).mean()


def logarithm_of_zero(outputs: Tensor, bad: bool) -> Tensor:
    chances = outputs.softmax(1) * (not bad)
    return -torch.log(chances).mean()


def one_of_three(outputs: Tensor, bad: bool) -> Tensor:
    sound = (outputs.square().sum() + 1.0).sqrt()
    angles = torch.acos(torch.tanh(outputs) * 0.5).mean()
    return sound + angles + (outputs.square().sum() * (not bad)).sqrt()


def line_of(text: str) -> int:
    lines = Path(__file__).read_text("utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.endswith(f"# line of {text}"))


def trained(
    run_dir: Path | None, criterion: Criterion, *, record: str = "before"
) -> tuple[Tensor, ...]:
    """Twenty steps of which one has a bad derivative; the parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    watch = None
    if run_dir is not None:
        watch = inspector.watch(model, optimizer, run_dir=run_dir, name="run", every=1)
    for step in range(20):
        loss = criterion(model(torch.randn(8, 6)), step == BAD)  # line of the call
        if watch is not None and record == "before":
            watch.record(loss=loss)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if watch is not None and record == "after":
            watch.record(loss=loss)
        optimizer.step()
    if watch is not None:
        watch.close()
    return tuple(p.detach() for p in model.parameters())


def told(run_dir: Path) -> tuple[int, NonFinite, Origin]:
    with inspector.open_run(run_dir / "run") as run:
        events = run.events()
    (first, *_) = [e for e in events if isinstance(e.event, Origin)]
    (seen, *_) = [e.event for e in events if isinstance(e.event, NonFinite)]
    assert isinstance(first.event, Origin)
    return first.step, seen, first.event


@pytest.mark.parametrize("record", ["before", "after", "never"])
@pytest.mark.parametrize(
    ("criterion", "op"),
    [
        (distance_to_itself, "SqrtBackward0"),
        (power, "PowBackward0"),
        (angle, "AcosBackward0"),
        (masked_logarithm, "LogBackward0"),
    ],
)
def test_the_operation_whose_derivative_is_not_finite(
    tmp_path: Path, criterion: Criterion, op: str, record: str
) -> None:
    watched = trained(tmp_path, criterion, record=record)
    for mine, other in zip(watched, trained(None, criterion), strict=True):
        assert torch.equal(mine.nan_to_num(7.0), other.nan_to_num(7.0))
    step, seen, origin = told(tmp_path)
    assert step == BAD
    assert (origin.phase, origin.op, origin.in_loss) == ("backward", op, True)
    calling = line_of("the call")
    assert (Path(origin.file), origin.line) == (Path(__file__), calling)
    assert (seen.where, seen.op, seen.line) == ("backward", op, calling)
    assert not origin.note
    (gradient,) = origin.tensors
    assert (gradient["name"], gradient["shape"]) == ("the loss's gradient", [8, 2])


def test_a_loss_that_is_never_recorded_and_not_finite(tmp_path: Path) -> None:
    trained(tmp_path, logarithm_of_zero, record="never")
    step, seen, origin = told(tmp_path)
    assert (step, origin.phase, origin.op, origin.in_loss) == (BAD, "forward", "log", True)
    assert (seen.where, origin.line) == ("loss", line_of("the call"))
    assert "that of softmax" in origin.note


def test_the_very_line_where_the_script_computes_its_loss_in_the_loop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=1) as watch:
        for step in range(BAD + 2):
            outputs = model(torch.randn(8, 6))
            sound = (outputs.square().sum() + 1.0).sqrt()
            below = outputs.square().sum() * (step != BAD)
            spread = below.sqrt()  # line of the loop
            loss = sound + spread
            watch.record(loss=loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        (finding, *_) = run.findings()
    step, _, origin = told(tmp_path)
    assert (step, origin.op, origin.line) == (BAD, "SqrtBackward0", line_of("the loop"))
    assert not origin.note  # of two roots the one that was zero
    assert (finding.code, finding.line) == ("nonfinite", origin.line)
    assert "derivative of the loss" in finding.title
    assert "under the root" in finding.remedies[-1].text


def test_operations_of_which_nothing_more_is_known_are_all_named(tmp_path: Path) -> None:
    trained(tmp_path, one_of_three)
    _, _, origin = told(tmp_path)
    assert origin.in_loss
    assert {origin.op, origin.note} == {
        "SqrtBackward0", "What it was given is gone: it may be that of acos as well."
    }  # fmt: skip


def test_a_loss_without_such_an_operation_stays_untold(tmp_path: Path) -> None:
    class Cruel(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: object, values: Tensor) -> Tensor:
            return values * 1.0

        @staticmethod
        def backward(_ctx: object, gradient: Tensor) -> Tensor:
            return gradient * torch.nan

    def cruel(outputs: Tensor, bad: bool) -> Tensor:
        made = Cruel.apply(outputs) if bad else outputs  # type: ignore[no-untyped-call]
        return (made.square() + 1.0).pow(1.5).mean()

    trained(tmp_path, cruel)
    _, _, origin = told(tmp_path)
    assert (origin.phase, origin.op) == ("loss", "the loss")
