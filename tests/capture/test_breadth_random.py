"""Models that hypothesis makes up, trained in ways it makes up: watched equals unwatched.

A dozen by default; ``HYPOTHESIS_EXAMPLES=500 uv run pytest tests/capture/test_breadth_random.py``
takes more.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from breadth import prove_unchanged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo import Case

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "12"))
WIDTH = 6

Part = Literal[
    "linear", "relu", "relu_", "tanh", "sigmoid", "batchnorm", "layernorm", "dropout", "residual",
    "add_", "view", "shared", "weight_norm", "spectral_norm", "frozen", "direct", "tuple", "scale",
]  # fmt: skip
PARTS: tuple[Part, ...] = Part.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Recipe:
    """A model, and the way it is trained."""

    parts: tuple[Part, ...]
    accumulate: int
    bfloat16: bool
    checkpoints: Literal["none", "reentrant", "non-reentrant"]
    compiled: Literal["", "eager", "aot_eager"]
    optimizer: Literal["SGD", "AdamW", "RMSprop"]
    evaluates: bool
    every: int


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class AddsInPlace(Residual):
    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += x
        return y


class Viewing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 2, WIDTH // 2).transpose(1, 2).reshape(-1, WIDTH)


class Direct(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward(x)


class Paired(Residual):
    def forward(self, x: Tensor) -> Any:
        return {"first": self.inner(x), "second": (x, None)}


class First(Residual):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)["first"]
        return result


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def _part(part: Part, shared: nn.Module) -> nn.Module:
    norms = nn.utils.parametrizations
    made: dict[Part, Any] = {
        "linear": _linear,
        "relu": nn.ReLU,
        "relu_": lambda: nn.Sequential(_linear(), nn.ReLU(inplace=True)),
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "batchnorm": lambda: nn.BatchNorm1d(WIDTH),
        "layernorm": lambda: nn.LayerNorm(WIDTH),
        "dropout": lambda: nn.Dropout(0.3),
        "residual": lambda: Residual(_linear()),
        "add_": lambda: AddsInPlace(_linear()),
        "view": Viewing,
        "shared": lambda: shared,
        "weight_norm": lambda: norms.weight_norm(_linear()),
        "spectral_norm": lambda: norms.spectral_norm(_linear()),
        "frozen": lambda: _linear().requires_grad_(False),
        "direct": lambda: Direct(_linear()),
        "tuple": lambda: First(Paired(_linear())),
        "scale": Scale,
    }
    module: nn.Module = made[part]()
    return module


class Model(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        shared = _linear()
        self.stem = _linear()
        self.parts = nn.ModuleList(_part(part, shared) for part in recipe.parts)
        self.head = nn.Linear(WIDTH, 3)
        # PyTorch itself refuses some modules in a checkpoint inside a compiled model.
        self.checkpoints = "none" if recipe.compiled else recipe.checkpoints

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.parts:
            if self.checkpoints == "none":
                x = part(x)
            else:
                x = checkpoint(part, x, use_reentrant=self.checkpoints == "reentrant")
        return self.head(x)


def build(recipe: Recipe) -> Case:
    torch._dynamo.reset()
    model = Model(recipe)
    optimizer = getattr(torch.optim, recipe.optimizer)(model.parameters(), lr=1e-3)
    called: Any = model
    if recipe.compiled:
        called = torch.compile(model, backend=recipe.compiled)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        for _ in range(recipe.accumulate):
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                loss = called(torch.randn(4, WIDTH)).float().square().mean()
            loss.backward()
        optimizer.step()
        if recipe.evaluates:
            model.eval()
            with torch.no_grad():
                called(torch.randn(4, WIDTH))
            model.train()
        return loss.detach()

    return Case(called, [optimizer], iterate)


RECIPES = st.builds(
    Recipe,
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(tuple),
    accumulate=st.sampled_from((1, 1, 3)),
    bfloat16=st.booleans(),
    checkpoints=st.sampled_from(("none", "reentrant", "non-reentrant")),
    compiled=st.sampled_from(("", "", "", "", "eager", "aot_eager")),
    optimizer=st.sampled_from(("SGD", "AdamW", "RMSprop")),
    evaluates=st.booleans(),
    every=st.sampled_from((0, 1, 2)),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 12,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(recipe=RECIPES)
def test_made_up_models_train_as_if_unwatched(recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as path:
        prove_unchanged(lambda: build(recipe), Path(path), steps=4, every=recipe.every)
