"""Metrics of a training step of one's own, from the predictions and targets that it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from same import recorded
from sklearn import metrics as oracle
from torch import Tensor, nn
from torch.nn import functional as F

from inspector import catalog
from inspector.config import RunConfig
from inspector.errors import ConfigError, ModelError
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.dry_run import dry_run
from inspector.training.metrics import Metrics
from inspector.training.step import Own
from inspector.training.task import build_task

SOURCE = """
from torch import nn
from torch.nn import functional as F


class Net(nn.Sequential):
    def __init__(self, in_features, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(in_features, 16), nn.ReLU(), nn.Linear(16, 10))


def training_step(model, batch):
    images, labels = batch
    scores = model(images)
    found = {"loss": F.cross_entropy(scores, labels), "spread": scores.std()}
    return found | {"predictions": scores, "targets": labels}
"""


def train(model: str, runs_dir: Path, name: str, **settings: Any) -> Run:
    config = RunConfig(
        model=model, data="digits", steps=30, batch_size=100, torch_threads=1, test=0.1,
        metrics=["f1", "auroc", "top2_accuracy", "confusion_matrix"], **settings,
    )  # fmt: skip
    made = runner.start(config, runs_dir, name)
    assert runner.join(60)
    run = Run(runs_dir / made)
    assert run.status == "finished", [stored.event.text for stored in run.events()]
    return run


def test_a_step_of_ones_own_measures_what_the_built_in_task_does(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(SOURCE)
    own = train(f"file:{source}:Net", tmp_path, "own")
    built_in = train(f"file:{source}:Net", tmp_path, "built_in", task="classification")
    names = ["loss", "accuracy"]
    names += [f"val_{n}" for n in ("loss", "accuracy", "f1", "auroc", "top2_accuracy")]
    names += ["test_f1", "test_accuracy"]
    for name in names:
        assert recorded(own, name) == pytest.approx(recorded(built_in, name), rel=1e-6), name
        assert recorded(own, name)
    assert recorded(own, "spread") and recorded(own, "val_spread")
    assert own.document("confusion_matrix") == built_in.document("confusion_matrix")

    task = build_task(RunConfig.from_dict(own.config))
    weights = torch.load(own.path / "blobs/checkpoints/last.pt", weights_only=True)["model"]
    task.model.load_state_dict(weights)
    pairs = [(task.model(x).argmax(1), y) for x, y in task.test_loader]
    guessed, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    f1 = oracle.f1_score(labels, guessed, average="macro")
    assert recorded(own, "test_f1") == {29: pytest.approx(f1)}


def measured(predictions: Tensor, targets: Tensor) -> tuple[str, dict[str, float], float | None]:
    """What comes of two batches; and the accuracy of a training step on all."""

    def step(_model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": torch.zeros(()), "predictions": batch[0], "targets": batch[1]}

    own, model = Own(step), nn.Identity()
    made: Metrics | None = None
    kind = ""
    for places in torch.arange(len(targets)).tensor_split(2):
        batch = predictions[places], targets[places]
        judged = own.judge(model, batch)
        kind = judged.kind
        made = made or Metrics(list(catalog.METRICS[judged.kind]), judged.kind, torch.device("cpu"))
        assert judged.outputs is not None
        made.update(judged.outputs, judged.targets)
    assert made is not None
    accuracy = own(model, (predictions, targets))[1].get("accuracy")
    return kind, made.compute()[0], None if accuracy is None else float(accuracy)


def test_numbers() -> None:
    torch.manual_seed(0)
    truth, guess = torch.randn(9), torch.randn(9)
    for targets in (truth, truth[:, None]):
        kind, found, accuracy = measured(guess, targets)
        assert (kind, accuracy) == ("regression", None)
        assert found == pytest.approx({
            "mae": oracle.mean_absolute_error(truth, guess),
            "rmse": oracle.mean_squared_error(truth, guess) ** 0.5,
            "r2": oracle.r2_score(truth, guess),
        }, rel=1e-4)  # fmt: skip


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3), (9, 1, 4, 4)])
def test_yes_or_no(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(shape), torch.randint(0, 2, shape)
    for targets in (labels, labels.bool()):
        kind, found, accuracy = measured(scores, targets)
        assert kind == "multi_label"
        right = float(((scores > 0) == labels.bool()).float().mean())
        assert found["accuracy"] == pytest.approx(right) == accuracy
    if shape == (9,):
        assert found["f1"] == pytest.approx(oracle.f1_score(labels, scores > 0))


def test_a_padded_text_counts_its_characters_alone() -> None:
    torch.manual_seed(0)
    scores, tokens = torch.randn(8, 6, 5), torch.randint(0, 5, (8, 6))
    padded = tokens.clone()
    padded[:, 4:] = -100
    padded[2] = -100
    kind, found, accuracy = measured(scores, padded)
    known = padded >= 0
    right = float((scores.argmax(-1) == tokens)[known].float().mean())
    assert kind == "sequence"
    assert found["accuracy"] == pytest.approx(right) == accuracy
    loss = F.cross_entropy(scores[known], tokens[known])  # ignores -100 by itself
    assert found["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-4)


def test_pixels_without_those_at_the_border() -> None:
    torch.manual_seed(0)
    scores, masks = torch.randn(8, 3, 4, 4), torch.randint(0, 3, (8, 4, 4))
    masks[:, 0] = -100
    kind, found, accuracy = measured(scores, masks)
    guessed, true = scores.argmax(1)[:, 1:].flatten(), masks[:, 1:].flatten()
    assert kind == "per_pixel"
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(true, guessed)) == accuracy
    assert found["mean_iou"] == pytest.approx(oracle.jaccard_score(true, guessed, average="macro"))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"predictions": torch.zeros(4, 2)}, "'predictions' is a tensor of shape .*return 'targe"),
        ({"other": torch.zeros(3)}, "'other' is a tensor of shape .*return its mean"),
        (
            {"predictions": torch.zeros(4, dtype=torch.long), "targets": torch.zeros(4).long()},
            r"scores for each class \(before softmax or argmax\).*torch.int64 \(4,\)",
        ),
        ({"predictions": torch.zeros(4, 2), "targets": torch.zeros(5)}, r"float32 \(5,\)"),
        ({"predictions": [1.0], "targets": torch.zeros(1)}, "tensors, but got list and Tensor"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(
    returned: dict[str, Any], message: str
) -> None:
    own = Own(lambda _model, _batch: {"loss": torch.zeros(()), **returned})
    with pytest.raises(ModelError, match=message) as told:
        own(nn.Identity(), None)
    assert "\n" not in str(told.value)


def test_metrics_that_it_cannot_have_are_refused_before_the_start(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(SOURCE)
    config = RunConfig(model=f"file:{source}:Net", data="digits", metrics=["mean_iou"])
    with pytest.raises(ConfigError, match="no metric 'mean_iou' for the task classification"):
        dry_run(build_task(config))
    source.write_text(SOURCE.replace('"targets": labels', '"targets": labels + 1'))
    with pytest.raises(ModelError, match="scores for 10 classes, but 'targets' are from 1 to 10"):
        dry_run(build_task(RunConfig(model=f"file:{source}:Net", data="digits", metrics=["f1"])))
