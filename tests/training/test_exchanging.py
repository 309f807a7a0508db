"""Activations that forward calls as functions, exchanged: equal to a model written so by hand."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.exports.export import export
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.replacing import replace_modules

SPELLINGS = {
    "F.relu(x)": "F.leaky_relu(x)",
    "torch.relu(x)": "F.leaky_relu(x)",
    "x.relu()": "F.leaky_relu(x)",
    "F.relu(input=x)": "F.leaky_relu(x)",
    "F.relu(x, True)": "F.leaky_relu(x, 0.01, True)",
    "F.relu(x, inplace=True)": "F.leaky_relu(x, inplace=True)",
    "(x.relu_(), x)[1]": "(F.leaky_relu_(x), x)[1]",
    "(F.relu_(x), x)[1]": "(F.leaky_relu_(x), x)[1]",
    "(torch.relu_(x), x)[1]": "(F.leaky_relu_(x), x)[1]",
    "nn.ReLU()(x)": "F.leaky_relu(x)",
}


def net(act: str, layer: str = "F.relu") -> str:
    """Source of a model with an activation of one spelling, and a transformer layer."""
    return (
        "import torch\n"
        "from torch import nn\n"
        "from torch.nn import functional as F\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, in_features=64, num_classes=10):\n"
        "        super().__init__()\n"
        "        self.inner = nn.Linear(in_features, 16)\n"
        "        self.attends = nn.TransformerEncoderLayer(\n"
        f"            16, 2, 24, activation={layer}, dropout=0.1, batch_first=True)\n"
        "        self.outer = nn.Linear(16, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = self.inner(x.flatten(1))\n"
        f"        x = {act}\n"
        "        return self.outer(self.attends(x[:, None] - 0.1)[:, 0])\n"
    )


def built(source: str) -> nn.Module:
    names: dict[str, Any] = {}
    exec(source, names)
    torch.manual_seed(0)
    model = names["Net"]()
    assert isinstance(model, nn.Module)
    return model


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_gradients_of_the_model_written_by_hand(spelling: str) -> None:
    exchanged, by_hand = built(net(spelling)), built(net(SPELLINGS[spelling], "F.leaky_relu"))
    assert replace_modules(exchanged, {"relu()": "LeakyReLU"}) == ["relu()"]
    x = torch.randn(8, 64)
    for model in (exchanged, copy.deepcopy(exchanged)):
        for got, wanted in zip(gradients(model, x), gradients(by_hand, x), strict=True):
            assert torch.equal(got, wanted)
    with torch.no_grad():  # nothing fused behind our back
        assert torch.equal(exchanged.eval()(x), by_hand.eval()(x))
    assert F.relu(torch.tensor(-1.0)) == 0  # outside of the model all is as it was


@pytest.mark.parametrize(
    ("name", "other", "old", "new"),
    [
        ("sigmoid()", "ReLU", "x.sigmoid_()", "F.relu(x, True)"),
        ("sigmoid()", "Tanh", "F.sigmoid(x)", "torch.tanh(x)"),
        ("tanh()", "GELU", "torch.tanh(x)", "F.gelu(x)"),
        ("gelu()", "SiLU", "F.gelu(x, approximate='tanh')", "F.silu(x)"),
        ("elu()", "Identity", "F.elu(x, 1.0)", "x"),
        ("softmax()", "Softplus", "torch.softmax(x, 1)", "F.softplus(x)"),
    ],
)
def test_other_functions(name: str, other: str, old: str, new: str) -> None:
    exchanged, by_hand = built(net(old)), built(net(new))
    replace_modules(exchanged, {name: other})
    x = torch.randn(8, 64)
    for got, wanted in zip(gradients(exchanged, x), gradients(by_hand, x), strict=True):
        assert torch.equal(got, wanted)


def test_two_functions_can_change_places() -> None:
    model, by_hand = (
        built(net("F.gelu(F.relu(x) - 1)")),
        built(net("F.relu(F.gelu(x) - 1)", "F.gelu")),
    )
    replace_modules(model, {"relu()": "GELU", "gelu()": "ReLU"})
    x = torch.randn(8, 64)
    for got, wanted in zip(gradients(model, x), gradients(by_hand, x), strict=True):
        assert torch.equal(got, wanted)


def test_a_path_limits_it_to_the_calls_inside_that_module() -> None:
    model, by_hand = built(net("F.relu(x)")), built(net("F.relu(x)", "F.leaky_relu"))
    assert replace_modules(model, {"attends.relu()": "LeakyReLU"}) == ["attends.relu()"]
    x = torch.randn(8, 64)
    for got, wanted in zip(gradients(model, x), gradients(by_hand, x), strict=True):
        assert torch.equal(got, wanted)


class Checkpointed(nn.Module):
    """Whose block is run again in the backward pass."""

    def __init__(self, activation: Any, *, reentrant: bool) -> None:
        super().__init__()
        self.block, self.reentrant = Block(activation), reentrant

    def forward(self, x: Tensor) -> Tensor:
        found = checkpoint(self.block, x, use_reentrant=self.reentrant)
        assert isinstance(found, Tensor)
        return found


class Block(nn.Module):
    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(6, 6), activation

    def forward(self, x: Tensor) -> Tensor:
        found = self.activation(self.linear(x))
        out = self.linear(found)
        assert isinstance(out, Tensor)
        return out


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_is_exchanged_in_both_passes(reentrant: bool) -> None:
    found = []
    for activation in (torch.tanh, F.silu):
        torch.manual_seed(0)
        model = Checkpointed(activation, reentrant=reentrant)
        if activation is torch.tanh:
            replace_modules(model, {"tanh()": "SiLU"})
        found.append(gradients(model, torch.randn(4, 6).requires_grad_()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_compiled_model_is_exchanged_too() -> None:
    model, by_hand = built(net("F.relu(x).relu()")), built(net("F.softplus(F.softplus(x))"))
    replace_modules(model, {"relu()": "Softplus", "attends.relu()": "ReLU"})
    model.compile(backend="eager")
    x = torch.randn(8, 64)
    for got, wanted in zip(gradients(model, x), gradients(by_hand, x), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"relu()": "PReLU"}, "without weights of its own"),
        ({"relu()": "RReLU"}, "without weights of its own"),
        ({"relu()": "Flatten"}, "without weights of its own"),
        ({"cos()": "ReLU"}, "one of relu, relu6"),
        ({"nowhere.relu()": "ReLU"}, "no module 'nowhere'"),
        ({"Relu": "ReLU"}, r"is written as relu\(\)"),
    ],
)
def test_what_cannot_be_exchanged_is_said(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace_modules(built(net("F.relu(x)")), wanted)


def config(folder: Path, source: str, **more: Any) -> RunConfig:
    path = folder / "mine.py"
    path.write_text(source)
    return RunConfig(
        model=f"file:{path}:Net", steps=14, batch_size=32, lr=0.2, momentum=0.5, torch_threads=1,
        device="cpu", **more,
    )  # fmt: skip


def trained(config: RunConfig, runs: Path) -> Run:
    name = runner.start(config, runs)
    assert runner.join(120)
    run = Run(runs / name)
    assert run.status == "finished", [stored.event.text for stored in run.events()]
    return run


def final(run: Run) -> dict[str, Tensor]:
    kept = torch.load(run.path / "blobs" / "checkpoints" / "last.pt", weights_only=True)
    return dict(kept["model"])


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_run_its_resumption_and_its_script_end_as_the_run_written_by_hand(tmp_path: Path) -> None:
    wanted = {"relu()": "Tanh", "attends.relu()": "SiLU"}
    (tmp_path / "hand").mkdir()
    by_hand = final(trained(config(tmp_path / "hand", net("torch.tanh(x)", "F.silu")), tmp_path))
    mine = config(tmp_path, net("F.relu_(x)"), replace=wanted, checkpoint_every=6)
    run = trained(mine, tmp_path / "runs")
    assert run.config["replace"] == wanted
    assert_same(final(run), by_hand)

    resumed = {**run.config, "resume": f"{run.name}@6"}
    assert_same(final(trained(RunConfig.from_dict(resumed), tmp_path / "runs")), by_hand)

    out = tmp_path / "script"
    export(run, "script", out)
    (out / "sitecustomize.py").write_text("import sys\nsys.modules['inspector'] = None\n")
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=out, capture_output=True, text=True, timeout=240,
        env=os.environ | {"PYTHONPATH": str(out)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(out / "final.pt", weights_only=True), by_hand)


@pytest.mark.parametrize(
    ("spelling", "settings", "words"),
    [
        ("x", {"replace": {"tanh()": "ReLU"}}, r"to call tanh\(\)"),
        ("F.relu_(x)", {"replace": {"relu()": "Tanh"}, "compile": "eager"}, r"x\.relu_\(\)"),
    ],
)
def test_what_would_have_no_effect_is_refused_before_the_run(
    tmp_path: Path, spelling: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        runner.start(config(tmp_path, net(spelling), **settings), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
