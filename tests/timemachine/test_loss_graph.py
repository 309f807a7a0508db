"""A NaN born in a loss that the script computes by functions: its operation, line and samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import inspector
from inspector.events import NonFinite, Origin

BAD = 12
Record = Callable[[Tensor], None]


def log_of_zero(outputs: Tensor, targets: Tensor, bad: bool, record: Record) -> Tensor:
    scores = torch.softmax(outputs * (1e6 if bad else 1.0), dim=1)
    chosen = scores.gather(1, 1 - scores.argmax(1, keepdim=True))
    logs = torch.log(chosen)  # line of log_of_zero
    loss = -logs.mean() + targets.sum() * 0
    record(loss)
    return loss


def root_of_less(outputs: Tensor, targets: Tensor, bad: bool, record: Record) -> Tensor:
    loss = outputs.square().sum()
    loss = (loss - (1e6 if bad else -1.0)).sqrt() + targets.sum() * 0  # line of root_of_less
    record(loss)
    return loss * 2.0


def nothing_counts(outputs: Tensor, targets: Tensor, bad: bool, record: Record) -> Tensor:
    kept = targets * (not bad) - 100 * bad
    loss = F.cross_entropy(outputs, kept, ignore_index=-100)  # line of nothing_counts
    record(loss)
    return loss


def divided_by_zero(outputs: Tensor, targets: Tensor, bad: bool, record: Record) -> Tensor:
    spread = outputs.sum(1) * (not bad)
    ratio = spread / spread  # line of divided_by_zero
    record(loss := ratio.mean() + targets.sum() * 0)
    return loss


def entropy(outputs: Tensor) -> Tensor:
    probabilities = torch.softmax(outputs, dim=1)
    return -(probabilities * torch.log(probabilities)).sum(1).mean()


def in_a_function(outputs: Tensor, targets: Tensor, bad: bool, record: Record) -> Tensor:
    loss = entropy(outputs * (1e6 if bad else 1.0)) + targets.sum() * 0  # line of in_a_function
    record(loss)
    return loss


def wrong_target(outputs: Tensor, targets: Tensor, bad: bool, record: Record) -> Tensor:
    wanted = targets[:, None].expand(-1, 2).float().clone()
    wanted[3] = float("nan") if bad else 0.0
    loss = F.mse_loss(outputs, wanted)  # line of wrong_target
    record(loss)
    return loss


Criterion = Callable[[Tensor, Tensor, bool, Record], Tensor]


def line_of(text: str) -> int:
    lines = Path(__file__).read_text("utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.endswith(f"# line of {text}"))


@pytest.mark.parametrize("after", [False, True], ids=["before backward", "after backward"])
@pytest.mark.parametrize(
    ("criterion", "phase", "op", "samples"),
    [
        (log_of_zero, "forward", "log", 8),
        (root_of_less, "forward", "sqrt", 0),
        (nothing_counts, "forward", "nll_loss", 0),
        (divided_by_zero, "forward", "div", 0),
        (in_a_function, "forward", "log", 1),
        (wrong_target, "data", "what the loss was given beside the model's output", 0),
    ],
)
def test_the_operation_in_the_loss_is_named(
    tmp_path: Path, criterion: Criterion, phase: str, op: str, samples: int, after: bool
) -> None:
    ends = []
    for watched in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        watch = None
        if watched:
            watch = inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=1)

        def record(loss: Tensor, watch: inspector.Watch | None = watch) -> None:
            if watch is not None:
                watch.record(loss=loss)

        for step in range(BAD + 3):
            inputs, targets = torch.randn(8, 6), torch.randint(0, 2, (8,))
            now = (lambda _loss: None) if after else record
            loss = criterion(model(inputs), targets, step == BAD, now)  # line of the call
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if after:
                record(loss)
            optimizer.step()
        if watch is not None:
            watch.close()
        ends.append((torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]))
    assert torch.equal(ends[0][0], ends[1][0])
    for mine, other in zip(ends[0][1], ends[1][1], strict=True):
        assert torch.equal(mine.nan_to_num(7.0), other.nan_to_num(7.0))
    with inspector.open_run(tmp_path / "run") as run:
        origins = [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]
        told = [e.event for e in run.events() if isinstance(e.event, NonFinite)]
    step, origin = origins[0]
    assert step == BAD
    if after:  # what autograd had kept is gone by then, its names are not
        assert (origin.phase, origin.in_loss) == ("forward", True)
        assert phase == "data" or origin.op == op
        assert origin.line == line_of("the call") and origin.file == __file__
        return
    assert (origin.phase, origin.op, origin.in_loss) == (phase, op, True)
    assert origin.line == line_of(criterion.__name__) and origin.file == __file__
    assert (told[0].where, told[0].op, told[0].line) == ("loss", op, origin.line)
    assert len(origin.samples) >= samples


def test_what_is_bad_in_the_model_is_not_put_down_to_the_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", every=1) as watch:
        for step in range(4):
            x = torch.randn(8, 6)
            x[2] = torch.inf if step == 3 else 0.0
            loss = torch.log(model(x).square() + 1.0).mean()
            watch.record(loss=loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        (origin,) = [e.event for e in run.events() if isinstance(e.event, Origin)]
    assert (origin.phase, origin.op, origin.in_loss) == ("data", "the batch's input", False)
