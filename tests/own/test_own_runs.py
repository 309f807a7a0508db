"""Runs with what users bring: parts, scale, sampling, own steps, workers, kept sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError, ModelError
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.data import load
from inspector.training.own.preview import preview_data, preview_model
from inspector.training.parts import loaders, split
from inspector.training.samples import Source
from inspector.training.task import build_task
from tests.runs import train

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features, num_classes, hidden=8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)
    def forward(self, x):
        return self.head(self.body(x))
"""
STEP = """
def training_step(model, batch):
    x, y = batch
    outputs = model(x)
    return {"loss": nn.functional.cross_entropy(outputs, y) + 7, "spread": outputs.std()}
"""


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """A table of 100 points in three classes of 60, 30 and 10."""
    torch.manual_seed(0)
    lines = ["x,y,kind"]
    for row in range(100):
        kind = 0 if row < 60 else 1 if row < 90 else 2
        x, y = (torch.randn(2) + 3 * kind).tolist()
        lines.append(f"{100 * x + 1000},{y},{'abc'[kind]}")
    path = tmp_path / "points.csv"
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET, "utf-8")
    return path


def configured(points: Path, net: Path, **fields: Any) -> RunConfig:
    made = {"data": f"csv:{points}", "model": f"file:{net}:Net", "batch_size": 10, "steps": 20}
    return RunConfig(**{**made, **fields})


def test_a_run_keeps_the_source_it_used(points: Path, net: Path, tmp_path: Path) -> None:
    first = train(configured(points, net), tmp_path / "runs")
    assert (first.status, first.name[:15]) == ("finished", "Net-points.csv-")
    net.write_text(NET.replace("hidden=8", "hidden=9"), "utf-8")
    second = train(configured(points, net), tmp_path / "runs")
    kept = [
        (run.path / "blobs" / "source" / "net.py").read_text("utf-8") for run in (first, second)
    ]
    assert kept == [NET, NET.replace("hidden=8", "hidden=9")]
    weights = torch.load(second.path / "blobs" / "last.pt")["model"]
    assert weights["head.weight"].shape == (3, 9)


def test_typed_code_is_kept_with_the_run(points: Path, tmp_path: Path) -> None:
    config = configured(points, points, model="code:Net", code=NET)
    run = train(config, tmp_path / "runs")
    assert run.status == "finished"
    assert (run.path / "blobs" / "source" / "your_code.py").read_text("utf-8") == NET
    content = json.loads((run.path / "run.json").read_text("utf-8"))
    assert RunConfig.from_dict(content["config"]) == config


def test_stratified_parts_are_disjoint_complete_and_proportional(points: Path, net: Path) -> None:
    config = configured(points, net, validation=0.2, test=0.1, stratify=True)
    task = build_task(config)
    parts = [loader.dataset for loader in (task.train_loader, task.val_loader, task.test_loader)]
    rows = [part.rows.tolist() for part in parts]  # type: ignore[attr-defined]
    assert sorted(row for part in rows for row in part) == list(range(100))
    counts = [task.source.labels[torch.tensor(part)].bincount().tolist() for part in rows]  # type: ignore[index]
    assert counts == [[42, 21, 7], [12, 6, 2], [6, 3, 1]]
    again = build_task(config)
    assert again.train_set.rows.tolist() == rows[0]
    assert build_task(configured(points, net, seed=1)).train_set.rows.tolist() != rows[0]


def test_scale_is_that_of_the_training_part_alone(points: Path, net: Path) -> None:
    task = build_task(configured(points, net, normalize=True, validation=0.4))
    inputs, _ = task.train_set.__getitems__(range(len(task.train_set)))
    assert inputs.mean(0).tolist() == pytest.approx([0, 0], abs=1e-4)
    assert inputs.std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-4)
    raw = task.source.inputs[task.train_set.rows]  # type: ignore[union-attr]
    held, _ = task.val_set.__getitems__([0])
    expected = (task.source.inputs[task.val_set.rows[0]] - raw.mean(0)) / raw.std(0, correction=0)  # type: ignore[union-attr]
    assert held[0].tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_a_constant_column_and_images_are_scaled_per_channel() -> None:
    images = torch.rand(50, 2, 4, 4) * torch.tensor([3.0, 0.0]).view(1, 2, 1, 1) + 1
    source = Source("classification", "image", images, torch.zeros(50).long(), ("a", "b"))
    made = loaders(source, RunConfig(normalize=True, validation=0))
    assert made.scale is not None
    assert made.scale.mean.flatten().tolist() == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert made.scale.std[0, 1].item() == 1.0
    with pytest.raises(ConfigError, match="normalize needs samples of real numbers"):
        loaders(Source("sequence", "tokens", images[:, 0, 0].long(), images[:, 0, 0].long()),
                RunConfig(normalize=True))  # fmt: skip


def test_rare_classes_are_drawn_as_often(points: Path, net: Path) -> None:
    task = build_task(configured(points, net, balance=True, epochs=1, validation=0))
    drawn = torch.cat([y for _ in range(30) for _, y in task.train_loader]).bincount()
    assert (drawn / drawn.sum()).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    with pytest.raises(ConfigError, match="balance needs samples with one class each"):
        loaders(load("diabetes", {}), RunConfig(data="diabetes", balance=True))


def test_a_class_of_one_sample_stays_in_training() -> None:
    targets = torch.tensor([0] * 9 + [1])
    source = Source("classification", "table", torch.zeros(10, 2), targets, ("a", "b"))
    assert 9 in split(source, RunConfig(stratify=True, validation=0.5)).train.tolist()
    with pytest.raises(DataError, match=r"validation=0\.5 and test=0\.4"):
        split(Source("classification", "table", torch.zeros(2, 2), targets[:2], ("a",)),
              RunConfig(validation=0.5, test=0.4))  # fmt: skip


def test_the_users_own_step_computes_the_loss(points: Path, net: Path, tmp_path: Path) -> None:
    net.write_text(NET + STEP, "utf-8")
    run = train(configured(points, net, normalize=True), tmp_path / "runs")
    assert run.status == "finished"
    assert run.series("loss").values.min() > 7
    assert len(run.series("spread").values) == 20
    assert run.series("val_loss").values[-1] > 7
    plain = train(configured(points, net, normalize=True, task="classification"), tmp_path / "runs")
    assert plain.series("loss").values.max() < 7


def test_own_steps_take_any_batch_and_must_give_a_loss(tmp_path: Path, net: Path) -> None:
    data = (
        "\ndef data():\n    held = [{'x': torch.ones(2), 'y': 0}]\n"
        "    return [{'x': torch.ones(2), 'y': i % 2} for i in range(9)], held\n"
    )
    step = "\ndef training_step(model, batch):\n    return model(batch['x']).mean(){}\n"
    config = RunConfig(model=f"file:{net}:Net", data=f"file:{net}:data", steps=3, batch_size=4,
                       model_args={"in_features": 2, "num_classes": 3})  # fmt: skip
    net.write_text(NET + data + step.format(""), "utf-8")
    assert train(config, tmp_path / "runs").status == "finished"
    net.write_text(NET + data + step.format(".expand(3)"), "utf-8")
    with pytest.raises(ModelError, match=r"to return a loss of one number.* shape \(3,\)"):
        runner.start(config, tmp_path / "runs")
    net.write_text(NET + data, "utf-8")
    with pytest.raises(ConfigError, match="batch is a dict of x, y; define training_step"):
        runner.start(config, tmp_path / "runs")


def test_an_own_step_is_insisted_on(points: Path, net: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a function training_step\(model, batch\)"):
        build_task(configured(points, net, task="own"))
    with pytest.raises(ConfigError, match="is for classification, not for per_pixel"):
        build_task(RunConfig(task="per_pixel"))


@pytest.mark.parametrize("given", ["model", "model, batch, ctx", "*, model, batch"])
def test_a_step_that_cannot_be_called_is_refused_before_the_start(
    tmp_path: Path, given: str
) -> None:
    path = tmp_path / "steps.py"
    path.write_text(f"def data(): return []\ndef training_step({given}): return 0\n")
    with pytest.raises(ConfigError, match=r"Expected training_step\(model, batch\), but it is"):
        build_task(RunConfig(data=f"file:{path}:data"))


def test_the_test_part_is_looked_at_once(points: Path, net: Path, tmp_path: Path) -> None:
    run = train(configured(points, net, test=0.2, normalize=True, steps=30), tmp_path / "runs")
    assert len(run.series("test_loss").values) == 1
    assert 0 <= run.series("test_accuracy").values[0] <= 1
    waited = run.series("data_seconds").values
    assert len(waited) == 30
    assert (waited >= 0).all()


def test_workers_train_in_a_child_process(points: Path, net: Path, tmp_path: Path) -> None:
    config = configured(points, net, workers=1, normalize=True, steps=12)
    name = runner.start(config, tmp_path / "runs")
    assert runner.current() is None
    with Run(tmp_path / "runs" / name) as run:
        _wait(run)
        assert run.status == "finished"
        loss = run.series("loss").values.tolist()
    plain = train(configured(points, net, normalize=True, steps=12), tmp_path / "runs")
    assert plain.series("loss").values.tolist() == pytest.approx(loss, rel=1e-5)


def test_a_loader_with_workers_of_its_own_does_too(net: Path, tmp_path: Path) -> None:
    net.write_text(
        NET + "from torch.utils.data import DataLoader, TensorDataset\n"
        "def data():\n    rows = TensorDataset(torch.ones(20, 2), torch.arange(20) % 2)\n"
        "    return DataLoader(rows, 5, num_workers=1)\n",
        "utf-8",
    )
    config = RunConfig(model=f"file:{net}:Net", data=f"file:{net}:data", steps=4)
    name = runner.start(config, tmp_path / "runs")
    assert runner.current() is None
    with Run(tmp_path / "runs" / name) as run:
        _wait(run)
        assert run.status == "finished"


def _wait(run: Run) -> None:
    import time

    end = time.monotonic() + 60
    while run.status in ("running", "empty"):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_used_up_generator_fails_with_a_sentence(net: Path, tmp_path: Path) -> None:
    net.write_text(
        NET + "from torch.utils.data import IterableDataset\n"
        "class Once(IterableDataset):\n    classes = 'ab'\n"
        "    def __init__(self): self.rest = iter([(torch.ones(2), 1)] * 20)\n"
        "    def __iter__(self): return self.rest\n",
        "utf-8",
    )
    config = RunConfig(model=f"file:{net}:Net", data=f"file:{net}:Once", steps=50, batch_size=4)
    run = train(config, tmp_path / "runs")
    assert run.status == "failed"
    assert any("generator that is used up" in e.event.text for e in run.events())


def test_the_preview_shows_what_the_model_sees(points: Path, net: Path) -> None:
    config = configured(points, net, normalize=True, validation=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made, source = preview_data(config)
    preview_model(config, source, made)
    assert torch.equal(torch.get_rng_state(), before)
    assert made.counts == {"a": 60, "b": 30, "c": 10}
    assert made.parts == (100, 0, 0)
    assert made.table is not None
    assert list(made.table) == ["x", "y", "target"]
    inputs = made.batch[0]
    assert (inputs["tensor"], inputs["shape"], inputs["dtype"]) == ("inputs", "10×2", "float32")
    assert abs(inputs["mean"]) < 1
    assert made.model == "Net: 51 parameters, 51 trained"


def test_previews_of_images_and_texts(tmp_path: Path) -> None:
    made, _ = preview_data(RunConfig(data="digits"))
    assert len(made.images) == 12
    assert made.images[0][0].shape == (8, 8, 3)
    text = tmp_path / "t.txt"
    text.write_text("to be or not to be " * 20, "utf-8")
    made, _ = preview_data(RunConfig(data=f"text:{text}", data_args={"length": 19}))
    assert sorted(made.texts[0]) == sorted("to be or not to be ")


def test_the_preview_lists_weights_that_differ(points: Path, net: Path, tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(5, 8), "body.0.bias": torch.ones(8)}, tmp_path / "w.pt")
    config = configured(points, net, weights=str(tmp_path / "w.pt"))
    made, source = preview_data(config)
    preview_model(config, source, made)
    assert made.weights is not None
    assert made.weights.different == (("head.weight", (3, 8), (5, 8)),)
    assert made.model == ""
    partial = configured(points, net, weights=str(tmp_path / "w.pt"), weights_partial=True)
    preview_model(partial, source, made)
    assert made.model.startswith("Net: 51")
