"""CTC on strips of digits, and Kullback–Leibler divergence from a teacher's probabilities."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError, ModelError
from inspector.training.data import load
from inspector.training.distribution import DistributionKLDiv
from inspector.training.dry_run import dry_run
from inspector.training.task import build_task
from inspector.training.transcription import (
    Strips,
    TranscriptLoss,
    Transcripts,
    check_lengths,
    greedy,
    needed,
    pad,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != 0]


def by_all_paths(log_probs: Tensor, labels: list[int]) -> float:
    """Minus the logarithm of the sum over every path that reads as the labels."""
    steps, classes = log_probs.shape
    total = sum(
        math.exp(sum(float(log_probs[step, label]) for step, label in enumerate(path)))
        for path in itertools.product(range(classes), repeat=steps)
        if collapsed(path) == labels
    )
    return -math.log(total)


def test_the_loss_is_that_of_all_alignments_and_padding_does_not_count() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(2, 4, 3).log_softmax(-1)
    targets = Transcripts(
        torch.tensor([[1, 1], [2, 0]]), torch.tensor([2, 1]), torch.tensor([8, 4])
    )
    each = [by_all_paths(log_probs[0], [1, 1]), by_all_paths(log_probs[1, :2], [2])]
    loss = TranscriptLoss("none")(log_probs, targets)
    assert loss.tolist() == pytest.approx(each, rel=1e-5)
    assert float(TranscriptLoss()(log_probs, targets)) == pytest.approx(
        (each[0] / 2 + each[1]) / 2, rel=1e-5
    )


def test_greedy_reading_merges_repeats_leaves_out_blanks_and_stops_at_the_end() -> None:
    paths = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 3, 3, 0, 4, 4]])
    log_probs = torch.nn.functional.one_hot(paths, 5).float().log()
    assert greedy(log_probs, torch.tensor([12, 6])) == [[1, 1, 2], [3]]


def test_strips_show_their_digits_and_are_padded_to_the_longest() -> None:
    source = load("digit_strips", {"samples": 50})
    assert isinstance(source, Strips)
    assert {len(one) for one in source.targets} == {2, 3, 4, 5}
    inputs, targets = source.fetch(torch.tensor([3, 4, 5]))
    widths = [source.inputs[row].shape[2] for row in (3, 4, 5)]
    assert inputs.shape == (3, 1, 8, max(widths))
    assert targets.input_lengths.tolist() == widths
    for place, row in enumerate((3, 4, 5)):
        assert torch.equal(inputs[place, ..., : widths[place]], source.inputs[row])
        assert inputs[place, ..., widths[place] :].count_nonzero() == 0
        length = targets.label_lengths[place]
        assert targets.labels[place, :length].tolist() == source.targets[row].tolist()


def test_sequences_of_numbers_are_padded_too() -> None:
    inputs, targets = pad([(torch.ones(3, 2), torch.tensor([1])), (torch.ones(1, 2), [2, 2, 1])])
    assert inputs.tolist() == [[[1, 1]] * 3, [[1, 1], [0, 0], [0, 0]]]
    assert targets.labels.tolist() == [[1, 0, 0], [2, 2, 1]]
    assert (targets.label_lengths.tolist(), targets.input_lengths.tolist()) == ([1, 3], [3, 1])


def test_it_learns_to_read() -> None:
    config = RunConfig(
        model="crnn", data="digit_strips", optimizer="adam", lr=0.01, batch_size=32,
        data_args={"samples": 400, "longest": 3},
    )  # fmt: skip
    task = build_task(config)
    dry_run(task)
    losses = []
    for _ in range(15):
        for batch in task.train_loader:
            task.optimizer.zero_grad()
            loss, _ = task.step(task.model, batch)
            loss.backward()
            task.optimizer.step()
            losses.append(loss.detach())
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[5:10])


def test_labels_that_no_alignment_fits_are_refused_by_row(tmp_path: Path) -> None:
    assert needed(torch.tensor([1, 1, 2])) == 4
    with pytest.raises(DataError, match=r"Row 1 of strips needs 4 steps .* gives 3 for its length"):
        check_lengths(torch.tensor([[16, 4], [6, 4]]), 16, 8, "strips")
    path = tmp_path / "few.py"
    path.write_text(
        "from torch import nn\n"
        "class Few(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = nn.functional.adaptive_avg_pool1d(x[:, 0], 4)\n"
        "        return self.head(x.mT).log_softmax(-1)\n",
        "utf-8",
    )
    config = RunConfig(model=f"file:{path}:Few", data="digit_strips")
    with pytest.raises(DataError, match=r"needs \d steps for its labels, but the model gives"):
        dry_run(build_task(config))
    path.write_text(path.read_text("utf-8").replace(".log_softmax(-1)", ""), "utf-8")
    with pytest.raises(ModelError, match=r"CTC takes log-probabilities, .*LogSoftmax\(dim=-1\)"):
        dry_run(build_task(config))


def test_divergence_is_the_textbook_sum() -> None:
    torch.manual_seed(0)
    scores, targets = torch.randn(4, 3), torch.rand(4, 3).softmax(1)
    p, q = targets.numpy(), torch.softmax(scores, 1).numpy()
    expected = (p * (np.log(p) - np.log(q))).sum() / 4
    assert float(DistributionKLDiv()(scores, targets)) == pytest.approx(expected, rel=1e-5)
    again = DistributionKLDiv()(scores.log_softmax(1), targets)
    assert float(again) == pytest.approx(expected, rel=1e-5)


def test_a_student_comes_close_to_its_teacher() -> None:
    config = RunConfig(model="lenet", data="soft_digits", optimizer="adam", lr=0.01)
    task = build_task(config)
    dry_run(task)
    assert type(task.loss_fn) is DistributionKLDiv
    assert task.source.targets.sum(1).tolist() == pytest.approx([1] * 1797)  # type: ignore[union-attr]
    losses = []
    for _ in range(3):
        for batch in task.train_loader:
            task.optimizer.zero_grad()
            loss, measured = task.step(task.model, batch)
            loss.backward()
            task.optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert measured["accuracy"] > 0.7


def test_what_is_no_distribution_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kl_div does not suit a classification task"):
        build_task(RunConfig(loss="kl_div"))
    shares = np.full((20, 4), 0.25)
    shares[7] = [0.5, 0.6, 0.1, 0.1]
    path = tmp_path / "shares.npz"
    np.savez(path, x=np.ones((20, 3)), y=shares)
    config = RunConfig(data=f"npz:{path}", task="distribution")
    with pytest.raises(DataError, match=r"'y' in .*shares.npz, row 7: .* but they sum to 1.3"):
        build_task(config)
    shares[7] = [-0.5, 0.5, 0.5, 0.5]
    np.savez(path, x=np.ones((20, 3)), y=shares)
    with pytest.raises(DataError, match=r"row 7: expected shares of 0 or more .* -0\.5 is among"):
        build_task(config)
    shares[7] = 0.25
    np.savez(path, x=np.ones((20, 3)), y=shares)
    task = build_task(config)
    dry_run(task)
    assert task.kind == "distribution"
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def data():\n"
        "    shares = torch.full((20, 4), 0.25)\n"
        "    shares[5] = 1\n"
        "    return torch.randn(20, 3), shares\n",
        "utf-8",
    )
    config = RunConfig(data=f"file:{tmp_path / 'own.py'}:data", task="distribution")
    with pytest.raises(DataError, match=r"row 5: expected shares .* but they sum to 4"):
        build_task(config)
