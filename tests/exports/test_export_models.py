"""The exported model is run beside one that is built here, from its class and weights alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from inspector.errors import ExportError
from inspector.exports.export import export
from inspector.exports.model import programs
from inspector.store.reader import Run
from sample_models.mlp import MLP

PER_PIXEL = '''
import torch
from torch import nn


class Pixels(nn.Module):
    """Scores for each pixel; its two ends share their weights."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width))
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.again = self.middle
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.last(self.again(self.middle(self.first(x).relu()).relu()))


def data():
    torch.manual_seed(0)
    images = torch.rand(40, 1, 9, 9)
    return torch.utils.data.TensorDataset(images, (images[:, 0] > 0.5).long())
'''


def digits(count: int) -> np.ndarray:
    return (load_digits().images[:count] / 16).astype(np.float32)


def runtime(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0])


def test_weights_load_into_the_bare_class(trained, tmp_path: Path) -> None:
    with trained("mlp", "digits", checkpoint_every=5) as run:
        plain = export(run, "state_dict", tmp_path / "w.pt")
        safe = export(run, "safetensors", tmp_path / "w.safetensors")
        early = export(run, "state_dict", tmp_path / "early.pt", checkpoint="step-000005")
        with pytest.raises(
            ExportError, match="no checkpoint named 'first'; choose from best, last"
        ):
            export(run, "state_dict", tmp_path / "x.pt", checkpoint="first")
    state = torch.load(plain.path, weights_only=True)
    MLP().load_state_dict(state)
    MLP().load_state_dict(load_file(safe.path))
    assert all(torch.equal(state[name], value) for name, value in load_file(safe.path).items())
    assert early.facts["step"] == 5 and plain.facts["step"] == 12
    assert not torch.equal(torch.load(early.path)["head.bias"], state["head.bias"])


def test_every_program_computes_what_the_class_does(trained, tmp_path: Path) -> None:
    with trained("mlp", "digits", checkpoint_every=5) as run:
        weights = export(run, "state_dict", tmp_path / "w.pt").path
        made = {
            to: export(run, to, tmp_path / to) for to in ("onnx", "torch_export", "torchscript")
        }
    model = MLP().eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    exported = torch.export.load(made["torch_export"].path).module()
    script = torch.jit.load(made["torchscript"].path)
    for size in (1, 7, 100):
        inputs = digits(size)[:, None]
        with torch.no_grad():
            wanted = model(torch.from_numpy(inputs)).numpy()
            for found in (exported, script):
                assert np.array_equal(found(torch.from_numpy(inputs)).numpy(), wanted)
        assert np.abs(runtime(made["onnx"].path, inputs) - wanted).max() < 1e-5
    facts = made["onnx"].facts
    assert 0 <= facts["max_abs"] < 1e-5 and facts["batch_sizes"] == [1, 2, 33, 64]
    assert "largest difference" in made["onnx"].notes[0]


@pytest.mark.parametrize(
    ("model", "data"),
    [("resnet", "digits"), ("transformer", "digit_rows"), ("lstm", "digit_rows")],
)  # fmt: skip
def test_onnx_of_other_kinds_agrees(trained, tmp_path: Path, model: str, data: str) -> None:
    with trained(model, data) as run:
        made = export(run, "onnx", tmp_path / "m.onnx")
    assert made.facts["max_abs"] < 1e-4
    inputs = digits(3) if data == "digit_rows" else digits(3)[:, None]
    assert len(runtime(made.path, inputs)) == 3


def test_own_file_is_rebuilt_from_the_copy_in_the_run(trained, tmp_path: Path) -> None:
    source = tmp_path / "pixels.py"
    source.write_text(PER_PIXEL)
    reference = f"file:{source}"
    with trained(f"{reference}:Pixels", f"{reference}:data", model_args={"width": 4}) as run:
        source.unlink()
        made = export(run, "onnx", tmp_path / "own.onnx")
        safe = export(run, "safetensors", tmp_path / "own.safetensors")
    images = np.random.default_rng(0).random((5, 1, 9, 9), np.float32)
    assert runtime(made.path, images).shape == (5, 2, 9, 9)
    shared = load_file(safe.path)
    assert torch.equal(shared["middle.weight"], shared["again.weight"])


def test_what_branches_on_data_is_refused_with_its_line(trained, tmp_path: Path) -> None:
    with trained("adaptive_depth", "two_moons") as run:
        for to in ("onnx", "torch_export"):
            with pytest.raises(
                ExportError, match=r"adaptive_depth.py:\d+: what it computes depends on the values"
            ) as told:
                export(run, to, tmp_path / to)
            assert "\n" not in str(told.value)
        script = export(run, "torchscript", tmp_path / "script.pt")
    assert script.facts["how"] == "compiled from source"
    assert [one.name for one in tmp_path.iterdir()] == ["script.pt"]


def test_a_program_that_computes_otherwise_is_not_written(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = programs._runtime
    wrong = lambda path: lambda inputs: [right(path)(inputs)[0] + 0.01]  # noqa: E731
    monkeypatch.setattr(programs, "_runtime", wrong)
    with (
        trained("mlp", "digits", checkpoint_every=5) as run,
        pytest.raises(ExportError, match=r"ONNX Runtime differs from PyTorch by 0\.01"),
    ):
        export(run, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_watched_run_says_what_can_be_exported(one_rank: Path, tmp_path: Path) -> None:
    with Run(one_rank) as run:
        for to in ("state_dict", "onnx", "torchscript"):
            with pytest.raises(ExportError, match=r"recorded by a script of yours.* telemetry"):
                export(run, to, tmp_path / to)
