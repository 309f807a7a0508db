"""Metrics of held-out samples against scikit-learn's, over parts of several unequal batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torch import Tensor

from inspector import catalog
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.dry_run import dry_run
from inspector.training.metrics import Metrics
from inspector.training.task import build_task
from inspector.training.transcription import Transcripts

ALL = {kind: list(names) for kind, names in catalog.METRICS.items()}


@pytest.fixture(autouse=True)
def numbers() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def measured(kind: Any, outputs: Tensor, targets: Tensor, *more: str) -> Any:
    """Everything that a task offers, of batches of 7."""
    made = Metrics([*ALL[kind], *more], kind, torch.device("cpu"))
    for part, true in zip(outputs.split(7), targets.split(7), strict=True):
        made.update(part, true)
    return made.compute()


def test_classes() -> None:
    scores, labels = torch.randn(50, 4), torch.randint(0, 4, (50,))
    scores[torch.arange(50), labels] += 1
    found, confusion = measured("classification", scores, labels, "top2_accuracy")
    guessed = scores.argmax(1)
    shares = {"average": "macro", "zero_division": 0}
    assert found == pytest.approx(
        {
            "accuracy": oracle.accuracy_score(labels, guessed),
            "f1": oracle.f1_score(labels, guessed, **shares),
            "precision": oracle.precision_score(labels, guessed, **shares),
            "recall": oracle.recall_score(labels, guessed, **shares),
            "auroc": oracle.roc_auc_score(labels, scores.softmax(1), multi_class="ovr"),
            "top2_accuracy": oracle.top_k_accuracy_score(labels, scores, k=2),
        }
    )
    assert confusion == oracle.confusion_matrix(labels, guessed).tolist()


def test_a_class_that_does_not_occur_counts_for_nothing() -> None:
    scores, labels = torch.randn(40, 5), torch.randint(0, 3, (40,))
    scores[:, 3:] -= 100
    found, _ = measured("classification", scores, labels)
    each = [
        oracle.roc_auc_score(labels == place, scores.softmax(1)[:, place]) for place in range(3)
    ]
    assert found["auroc"] == pytest.approx(np.mean(each), rel=1e-5)
    guessed = scores.argmax(1)
    assert found["f1"] == pytest.approx(oracle.f1_score(labels, guessed, average="macro"))
    one, _ = measured("classification", scores[labels == 1], labels[labels == 1])
    assert "accuracy" in one


def test_labels() -> None:
    scores, labels = torch.randn(40, 3), torch.randint(0, 2, (40, 3)).float()
    found, _ = measured("multi_label", scores, labels)
    guessed = (scores > 0).numpy()
    shares = {"average": "macro", "zero_division": 0}
    assert found == pytest.approx(
        {
            "accuracy": float(np.mean(guessed == labels.numpy())),
            "exact_match": oracle.accuracy_score(labels, guessed),
            "f1": oracle.f1_score(labels, guessed, **shares),
            "precision": oracle.precision_score(labels, guessed, **shares),
            "recall": oracle.recall_score(labels, guessed, **shares),
            "auroc": oracle.roc_auc_score(labels, scores.sigmoid(), average="macro"),
        }
    )
    single, _ = measured("multi_label", scores[:, :1], labels[:, :1])
    assert single["f1"] == pytest.approx(oracle.f1_score(labels[:, 0], guessed[:, 0]))


@pytest.mark.parametrize("columns", [1, 3])
def test_numbers(columns: int) -> None:
    outputs, targets = torch.randn(40, columns), torch.randn(40, columns)
    found, _ = measured("regression", outputs, targets)
    assert found == pytest.approx(
        {
            "mae": oracle.mean_absolute_error(targets, outputs),
            "rmse": oracle.mean_squared_error(targets.flatten(), outputs.flatten()) ** 0.5,
            "r2": oracle.r2_score(targets, outputs),
        },
        rel=1e-4,
    )
    assert set(measured("regression", outputs[:1], targets[:1])[0]) == {"mae", "rmse"}


def test_text_and_pixels() -> None:
    scores, tokens = torch.randn(20, 6, 5), torch.randint(0, 5, (20, 6))
    found, _ = measured("sequence", scores, tokens)
    loss = oracle.log_loss(tokens.flatten(), scores.softmax(-1).flatten(0, 1))
    assert found["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    right = float((scores.argmax(-1) == tokens).float().mean())
    assert found["accuracy"] == pytest.approx(right)
    pixels, masks = torch.randn(20, 3, 4, 4), torch.randint(0, 3, (20, 4, 4))
    found, confusion = measured("per_pixel", pixels, masks)
    guessed = pixels.argmax(1).flatten()
    assert found["mean_iou"] == pytest.approx(
        oracle.jaccard_score(masks.flatten(), guessed, average="macro")
    )
    assert confusion == oracle.confusion_matrix(masks.flatten(), guessed).tolist()


def test_distributions_and_readings() -> None:
    scores, shares = torch.randn(20, 4), torch.rand(20, 4).softmax(1)
    found, _ = measured("distribution", scores, shares)
    divergence = (shares * (shares.log() - scores.log_softmax(1))).sum(1).mean()
    assert found["kl_divergence"] == pytest.approx(float(divergence), rel=1e-4)
    paths = torch.tensor([[1, 0, 2, 2], [3, 3, 0, 3]])
    log_probs = torch.nn.functional.one_hot(paths, 5).float().mul(10).log_softmax(-1)
    labels = torch.tensor([[1, 2, 0], [3, 4, 3]])
    targets = Transcripts(labels, torch.tensor([2, 3]), torch.tensor([4, 4]))
    made = Metrics([], "transcription", torch.device("cpu"))
    made.update(log_probs, targets)  # read as 1 2 and 3 3: one right, one of five labels left out
    assert made.compute()[0] == pytest.approx({"sequence_accuracy": 0.5, "char_error_rate": 0.2})


def test_a_run_records_them_and_keeps_the_confusion_matrix(tmp_path: Path) -> None:
    config = RunConfig(
        data="two_moons", epochs=2, test=0.2, metrics=["f1", "auroc", "confusion_matrix"]
    )
    name = runner.start(config, tmp_path)
    assert runner.join(60)
    with contextlib.closing(Run(tmp_path / name)) as run:
        assert run.status == "finished"
        for part in ("val", "test"):
            for metric in ("loss", "accuracy", "f1", "auroc"):
                assert 0 < run.series(f"{part}_{metric}").values[-1] < 1
        document = run.document("confusion_matrix")
    assert document is not None
    assert (document["part"], document["classes"]) == ("test", ["upper", "lower"])
    assert np.sum(document["counts"]) == 200


def test_unknown_metrics_are_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no metric 'f2' .* choose from accuracy, f1.*top2_acc"):
        dry_run(build_task(RunConfig(metrics=["f2"])))
    with pytest.raises(ConfigError, match=r"no metric 'auroc' for the task regression"):
        dry_run(build_task(RunConfig(data="diabetes", metrics=["auroc"])))
    path = tmp_path / "own.py"
    path.write_text(
        "from torch import nn\n"
        "def model(in_features):\n    return nn.Linear(in_features, 1)\n"
        "def training_step(model, batch):\n    return model(batch[0]).mean()\n",
        "utf-8",
    )
    with pytest.raises(ConfigError, match=r"training_step .* does not return them beside"):
        dry_run(build_task(RunConfig(model=f"file:{path}:model", data="spirals", metrics=["f1"])))
