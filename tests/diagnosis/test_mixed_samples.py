"""The batch taken for the sequence is told, and what only looks like it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import inspector
from inspector.diagnosis import Finding


class Reader(nn.Module):
    """An embedding or a linear module, a sequence module, and scores.

    Args:
        order: what the forward pass does to its input for the sequence module.
        pool: what it does to its results.
    """

    def __init__(
        self,
        sequence: nn.Module,
        order: Callable[[Tensor], Tensor] = lambda x: x,
        pool: Callable[[Tensor], Tensor] = lambda x: x.mean(1),
        *,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 16)
        self.sequence = sequence
        self.scores = nn.Linear(16, outputs)
        self.order, self.pool = order, pool

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.order(self.inner(x))
        if isinstance(self.sequence, nn.MultiheadAttention):
            hidden, _ = self.sequence(hidden, hidden, hidden, need_weights=False)
        elif isinstance(self.sequence, nn.RNNBase):
            hidden, _ = self.sequence(hidden)
        else:
            hidden = self.sequence(hidden)
        scores: Tensor = self.scores(self.pool(hidden))
        return scores


def found(
    run_dir: Path, model: nn.Module, shape: tuple[int, ...], targets: tuple[int, ...]
) -> list[Finding]:
    """What is found in ten steps on inputs and targets of these shapes."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with inspector.watch(model, optimizer, run_dir=run_dir, every=1) as watch:
        for _ in range(10):
            scores = model(torch.randn(shape))
            labels = torch.randint(0, scores.shape[-1], targets)
            loss = F.cross_entropy(scores.flatten(0, -2), labels.flatten())
            watch.record(loss=loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        return [finding for finding in run.findings() if finding.code == "mixed_samples"]


def encoder(*, first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("sequence", "module", "kind"),
    [
        (lambda first: nn.LSTM(16, 16, batch_first=first), "sequence", "LSTM"),
        (lambda first: nn.RNN(16, 16, batch_first=first), "sequence", "RNN"),
        (
            lambda first: nn.MultiheadAttention(16, 2, batch_first=first),
            "sequence",
            "MultiheadAttention",
        ),
        (
            lambda first: encoder(first=first),
            "sequence.layers.0.self_attn",
            "TransformerEncoderLayer",
        ),
    ],
)
def test_what_is_given_the_batch_first_and_does_not_expect_it(
    tmp_path: Path, sequence: Callable[[bool], nn.Module], module: str, kind: str
) -> None:
    (finding,) = found(tmp_path, Reader(sequence(False)), (24, 7, 5), (24,))
    assert (finding.level, finding.module) == ("warning", module)
    assert "24 samples" in finding.title
    assert finding.remedies[0].code == f"nn.{kind}(…, batch_first=True)"
    assert not found(tmp_path, Reader(sequence(True)), (24, 7, 5), (24,))


def steps_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


@pytest.mark.parametrize(
    ("model", "shape", "targets"),
    [
        (Reader(nn.LSTM(16, 16), steps_first, lambda x: x[-1]), (24, 7, 5), (24,)),
        (Reader(nn.LSTM(16, 16), pool=lambda x: x[-1]), (7, 24, 5), (24,)),
        (Reader(nn.LSTM(16, 16), pool=lambda x: x), (7, 24, 5), (7, 24)),  # a label for each step
        (Reader(nn.LSTM(16, 16), pool=lambda x: x.flatten(0, 1)), (7, 24, 5), (168,)),
        (Reader(nn.LSTM(16, 16), pool=lambda x: x[:, 0]), (24, 1, 5), (24,)),  # one long sentence
        (Reader(nn.LSTM(16, 16), pool=lambda x: x[-1]), (24, 24, 5), (24,)),  # nobody can tell
        (Reader(nn.LSTM(16, 16), lambda x: x[0], pool=lambda x: x), (1, 7, 5), (7,)),  # no batch
    ],
    ids=["transposed", "given steps first", "labels of steps", "flattened", "one sentence",
         "as many steps as samples", "without a batch"],
)  # fmt: skip
def test_what_has_its_steps_first_is_left_alone(
    tmp_path: Path, model: nn.Module, shape: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    assert not found(tmp_path, model, shape, targets)
