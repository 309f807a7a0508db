"""What is said of an operation that gave NaN is true of it, and what helps does help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.diagnosis import Finding
from inspector.diagnosis.births import birth

ZEROS = torch.zeros(2, 3)


def run(code: str, x: Tensor, y: Tensor) -> Tensor:
    """The value of a remedy's line."""
    value = eval(code, {"torch": torch, "x": x, "y": y})
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize(
    ("op", "x"),
    [
        ("log", ZEROS),
        ("sqrt", ZEROS - 1),
        ("div", ZEROS),
        ("exp", ZEROS + 1000),
        ("acos", ZEROS + 1.5),
        ("mean", ZEROS[:0]),
    ],
)
def test_the_line_for_an_operation_gives_a_finite_value(op: str, x: Tensor) -> None:
    bad = torch.div(x, ZEROS) if op == "div" else getattr(torch, op)(x)
    known = birth(op)
    assert not bad.isfinite().all()
    assert known is not None
    assert run(known.remedies[0].code, x, ZEROS).isfinite().all()


@pytest.mark.parametrize("op", ["sqrt", "log", "acos"])
def test_the_line_for_a_derivative_gives_a_finite_gradient(op: str) -> None:
    x = (ZEROS + (op == "acos")).requires_grad_()
    value = getattr(torch, op)(x)
    node = value.grad_fn
    assert node is not None
    (0 * value).sum().backward()
    assert x.grad is not None and x.grad.isnan().all()  # infinity times nothing
    known = birth(node.name())
    assert known is not None and known != birth(op)
    x.grad = None
    torch.autograd.backward(run(known.remedies[0].code, x, x).sum())
    assert x.grad is not None and x.grad.isfinite().all()


def test_of_what_is_not_known_nothing_is_said() -> None:
    assert birth("fft") is None
    assert birth("FftBackward0") is None
    assert birth("") is None


def nonfinite(path: Path) -> Finding:
    with inspector.open_run(path) as run:
        return next(finding for finding in run.findings() if finding.code == "nonfinite")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        return torch.softmax(scores.masked_fill(x == 0, float("-inf")), -1)


def test_a_row_that_is_masked_throughout_is_not_put_down_to_a_logarithm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attention()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for step in range(20):
            x = torch.rand(8, 4) + 0.1
            if step == 12:
                x[5] = 0
            optimizer.zero_grad()
            loss = model(x).square().mean()
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
    finding = nonfinite(watch.run_path)
    assert (finding.op, finding.step) == ("softmax", 12)
    assert "all of it is masked" in finding.explanation
    assert [remedy.text for remedy in finding.remedies] == [
        "Leave something unmasked in every row, or mask with the smallest finite number."
    ]
    assert "in steps" not in finding.evidence[0].text  # they are the values of one step


def test_a_nan_in_the_derivative_of_the_loss_says_how_to_get_its_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for step in range(20):
            x = torch.rand(8, 4)
            y = x + 0.1
            if step == 12:
                y[3] = x[3]
            optimizer.zero_grad()
            loss = torch.sqrt((model(x) - model(y)).square().sum(1)).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            watch.record(loss=loss)
            optimizer.step()
    finding = nonfinite(watch.run_path)
    assert finding.step == 12
    assert finding.title.endswith("the gradient that the loss sends into the model (sample 3).")
    assert "derivative" in finding.explanation
    codes = [remedy.code for remedy in finding.remedies]
    assert codes[0] == "torch.autograd.set_detect_anomaly(True)"
    assert any("sqrt" in code for code in codes)
