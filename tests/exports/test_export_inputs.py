"""Models that take several tensors, nested ones, or strips of any width, in ONNX and elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from inspector.errors import ExportError
from inspector.exports.export import export
from sample_models.crnn import CRNN

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Rows(torch.utils.data.Dataset):
    """Numbers, a category and a weight for each sample, as a dict."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.x, self.kind = torch.randn(60, 3, generator=g), torch.randint(0, 5, (60,), generator=g)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "kind": self.kind[i], "y": self.x[i].sum() + self.kind[i]}


class Two(nn.Module):
    """Keywords and an option in, a dict out."""

    def __init__(self):
        super().__init__()
        self.numbers, self.kinds = nn.Linear(3, 6), nn.Embedding(5, 6)

    def forward(self, x, kind, *, gain=1.0):
        hidden = (self.numbers(x) + self.kinds(kind)).tanh() * gain
        return {"y": hidden.sum(1), "hidden": (hidden, None)}


class Nested(Two):
    """The batch itself in, a tuple out."""

    def forward(self, batch):
        found = super().forward(batch["x"], batch["kind"])
        return found["y"], found["hidden"][0]


class Graph(Two):
    """Nodes and edges: a part of them is no graph."""

    def forward(self, x, edges):
        return self.numbers(x).index_add(0, edges[0], self.numbers(x)[edges[1]]).sum(1)


class Parts(Two):
    def forward(self, x):
        raise NotImplementedError


def training_step(model, batch):
    if isinstance(model, Nested):
        predicted, _ = model(batch)
    elif isinstance(model, Graph):
        n = len(batch["x"])
        predicted = model(batch["x"], torch.stack([torch.arange(n), torch.arange(n).flip(0)]))
    elif isinstance(model, Parts):
        predicted = model.numbers(batch["x"]).sum(1)
    else:
        predicted = model(batch["x"], gain=2.0, kind=batch["kind"])["y"]
    return F.mse_loss(predicted, batch["y"].float())
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "several.py"
    path.write_text(SOURCE)
    return path


def names(source: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("several", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_onnx(path: Path, feed: dict[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = [one.name for one in session.get_outputs()]
    return dict(zip(given, session.run(None, feed), strict=True))


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    kinds = torch.randint(0, 5, (count,), generator=generator)
    return torch.randn(count, 3, generator=generator), kinds


def bare(source: Path, name: str, weights: Path) -> torch.nn.Module:
    model: torch.nn.Module = getattr(names(source), name)()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def test_keywords_and_options_become_named_inputs(
    trained: Any, source: Path, tmp_path: Path
) -> None:
    with trained(f"file:{source}:Two", f"file:{source}:Rows", batch_size=16) as run:
        made = {to: export(run, to, tmp_path / to) for to in ("onnx", "torch_export", "state_dict")}
        with pytest.raises(ExportError, match=r"TorchScript cannot express Two .*'gain' is not in"):
            export(run, "torchscript", tmp_path / "script")
    model = bare(source, "Two", made["state_dict"].path)
    program = torch.export.load(made["torch_export"].path).module()
    for count in (1, 9, 40):
        x, kind = batch(count)
        with torch.no_grad():
            wanted = model(x, kind, gain=2.0)
        got = run_onnx(made["onnx"].path, {"x": x.numpy(), "kind": kind.numpy()})
        assert set(got) == {"y", "hidden_0"}
        assert np.abs(got["y"] - wanted["y"].numpy()).max() < 1e-5
        assert np.abs(got["hidden_0"] - wanted["hidden"][0].numpy()).max() < 1e-5
        assert torch.equal(program(x, gain=2.0, kind=kind)["y"], wanted["y"])
    assert made["onnx"].facts["inputs"] == ["x [batch, 3]", "kind [batch]"]
    assert made["onnx"].facts["outputs"] == ["y [batch]", "hidden_0 [batch, 6]"]
    assert made["onnx"].facts["batch_sizes"] == [1, 2, 9, 16]


def test_a_batch_that_is_a_dict_is_taken_as_it_is(
    trained: Any, source: Path, tmp_path: Path
) -> None:
    with trained(f"file:{source}:Nested", f"file:{source}:Rows", batch_size=16) as run:
        made = export(run, "onnx", tmp_path / "nested.onnx")
        script = export(run, "torchscript", tmp_path / "nested.pt")
        weights = export(run, "state_dict", tmp_path / "w.pt").path
    x, kind = batch(7)
    y = torch.zeros(7)
    with torch.no_grad():
        wanted, hidden = bare(source, "Nested", weights)({"x": x, "kind": kind})
    feed = {"batch_x": x.numpy(), "batch_kind": kind.numpy(), "batch_y": y.numpy()}
    got = run_onnx(made.path, feed)
    assert np.abs(got["output_0"] - wanted.numpy()).max() < 1e-5
    assert np.abs(got["output_1"] - hidden.numpy()).max() < 1e-5
    jit: Any = torch.jit
    loaded = jit.load(script.path)({"x": x, "kind": kind, "y": y})
    assert torch.allclose(loaded[0], wanted, atol=1e-6)


def test_what_cannot_be_divided_keeps_its_sizes(trained: Any, source: Path, tmp_path: Path) -> None:
    with trained(f"file:{source}:Graph", f"file:{source}:Rows", batch_size=16) as run:
        made = export(run, "onnx", tmp_path / "graph.onnx")
    assert made.facts["inputs"] == ["x [16, 3]", "edges [2, 16]"]
    assert any(note.startswith("All sizes are fixed") for note in made.notes)


def test_a_step_that_passes_the_model_by_is_refused(
    trained: Any, source: Path, tmp_path: Path
) -> None:
    with (
        trained(f"file:{source}:Parts", f"file:{source}:Rows", batch_size=16) as run,
        pytest.raises(ExportError, match=r"to call the model .*calls parts of it only; export st"),
    ):
        export(run, "onnx", tmp_path / "x.onnx")


def test_a_reader_of_strips_takes_any_width(trained: Any, tmp_path: Path) -> None:
    with trained("crnn", "digit_strips", steps=3) as run:
        made = export(run, "onnx", tmp_path / "reader.onnx")
        weights = export(run, "state_dict", tmp_path / "w.pt").path
    state = torch.load(weights, weights_only=True)
    model = CRNN(in_channels=1, image_size=8, num_classes=11).eval()
    model.load_state_dict(state)
    for count, width in ((1, 8), (5, 33), (70, 90)):
        strips = torch.rand(count, 1, 8, width)
        with torch.no_grad():
            wanted = model(strips).numpy()
        assert (
            np.abs(run_onnx(made.path, {"inputs": strips.numpy()})["outputs"] - wanted).max() < 1e-4
        )
    assert made.facts["inputs"] == ["inputs [batch, 1, 8, width]"]
    assert "and widths of" in made.notes[0]
