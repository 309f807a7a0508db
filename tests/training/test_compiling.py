"""``torch.compile``: what it leaves to see, what is said where it cannot work, inductor itself."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.events import Notice
from inspector.store.reader import Run
from inspector.training import compiling, runner
from inspector.views.health import health

BASE = RunConfig(
    model="lenet", steps=12, batch_size=128, optimizer="sgd", lr=0.05, torch_threads=1,
    controls=Controls(clip="norm", clip_threshold=0.01, capture_every=1),
)  # fmt: skip
GPT = '''
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads, self.mix, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        parts = self.mix(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class GPT(nn.Module):
    """Predicts each next character."""

    def __init__(self, vocab_size: int, sequence_length: int, width: int = 32):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.place = nn.Parameter(torch.zeros(sequence_length, width))
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens):
        return self.head(self.blocks(self.token(tokens) + self.place))
'''


def train(config: RunConfig, folder: Path, name: str) -> Run:
    runner.start(config, folder, name=name)
    assert runner.join(300)
    run = Run(folder / name)
    assert run.status == "finished", [stored.event.text for stored in run.events()]
    return run


def notes(run: Run) -> str:
    return " ".join(s.event.message for s in run.events() if isinstance(s.event, Notice))


def same_numbers(compiled: Run, plain: Run, parameter: str, *, rel: float) -> None:
    for key in (("loss", ""), ("total_grad_norm", ""), ("clipped_grad_norm", ""),
                ("grad_norm", parameter), ("update_ratio", parameter)):  # fmt: skip
        mine, theirs = compiled.series(*key), plain.series(*key)
        assert mine.steps.tolist() == theirs.steps.tolist() != [], key
        assert mine.values == pytest.approx(theirs.values, rel=rel, abs=1e-6), key


def test_gradients_of_a_compiled_model_are_seen_before_they_are_clipped(tmp_path: Path) -> None:
    compiled = train(dataclasses.replace(BASE, compile="eager"), tmp_path, "compiled")
    plain = train(BASE, tmp_path, "plain")
    same_numbers(compiled, plain, "fc1.weight", rel=1e-4)
    assert (compiled.series("total_grad_norm").values > 0.011).any()
    assert compiled.series("clipped_grad_norm").values.max() < 0.0101
    assert "No backward pass" not in notes(compiled)
    document = compiled.document("parameters")
    assert document is not None
    assert document["gradients_seen"] == "after_backward"


def test_a_script_that_compiles_in_place_is_seen_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for _ in range(4):
            loss = model(torch.randn(16, 4)).square().mean()
            watch.record(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e-3)))
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        assert run.series("total_grad_norm").values == pytest.approx(norms, rel=1e-5)
        sights = {module.path: module for module in health(run).modules}
    assert sights["0"].sight == "blind"
    assert "a built-in run with compile off" in sights["0"].remedy


@pytest.mark.parametrize(
    ("kind", "text", "told", "remedy"),
    [
        ("InvalidCxxCompiler", "No working C++ compiler found", "No working", "apt install g++"),
        ("CppCompileError", "C++ compile error\n\nCommand:\ng++ x.cpp\nx.cpp:1:10: fatal error: "
         "Python.h: No such file", "fatal error: Python.h", "apt install python3-dev"),
        ("TritonMissing", "Cannot find a working triton.", "triton", "pip install triton"),
        ("Odd", "", "Odd", ""),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_what_to_install(
    kind: str, text: str, told: str, remedy: str
) -> None:
    error = type(kind, (RuntimeError,), {})(text)
    said = compiling._trouble(error)
    assert said.startswith("torch.compile does not work here (")
    assert told in said.partition("): ")[0]
    assert said.endswith("trained uncompiled.") if not remedy else remedy in said


def test_inductor_without_a_compiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config, cpp_builder

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for found in vars(cpp_builder).values():
        if isinstance(found, functools._lru_cache_wrapper):
            found.cache_clear()
    with config.patch({"cpp.cxx": (None, "/no/such/g++")}):
        said = compiling._try("inductor", torch.device("cpu"))
    assert "No working C++ compiler found" in said
    assert "apt install g++" in said


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")


@pytest.mark.slow
@needs_compiler
def test_inductor_trains_as_eager_does(tmp_path: Path) -> None:
    """Convolutions with a shorter last batch: a second shape is compiled."""
    compiled = train(dataclasses.replace(BASE, compile=True), tmp_path, "compiled")
    same_numbers(compiled, train(BASE, tmp_path, "plain"), "fc1.weight", rel=1e-3)
    assert "runs compiled by inductor: the 10 modules inside it are not seen" in notes(compiled)


@pytest.mark.slow
@needs_compiler
def test_inductor_trains_a_small_gpt(tmp_path: Path) -> None:
    source, text = tmp_path / "gpt.py", tmp_path / "text.txt"
    source.write_text(GPT)
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    settings: dict[str, Any] = {
        "model": f"file:{source}:GPT", "data": f"text:{text}", "data_args": {"length": 24},
        "batch_size": 16, "steps": 8,
    }  # fmt: skip
    plain = dataclasses.replace(BASE, **settings)
    compiled = train(dataclasses.replace(plain, compile=True), tmp_path / "runs", "compiled")
    same_numbers(compiled, train(plain, tmp_path / "runs", "plain"), "head.weight", rel=1e-3)
    blind = {module.path for module in health(compiled).modules if module.sight == "blind"}
    assert {"blocks.0.mix", "head"} <= blind
