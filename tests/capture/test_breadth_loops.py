"""The whole of ``watch()`` on the zoo and on more loops: same bits, nothing left behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from breadth import prove_unchanged
from test_unchanged import train
from torch import Tensor, nn
from zoo import ZOO, Case, mlp, plain_loop

STEPS = 12

# By default the cases that lean on more than the observer; ``-m slow`` takes all of them.
DEFAULT = {
    "ordinary", "adam_dropout_batchnorm", "lazy_batchnorm", "complex_parameters", "gan", "lbfgs",
    "sparse_gradients", "partly_on_meta", "checkpoint_reentrant", "compiled_before", "amp_plain",
    "evaluation_between", "assigned_mid_run", "data_parallel", "step_inside_backward",
}  # fmt: skip
LOOPS: dict[str, Callable[[], Case]] = {}


def loop(build: Callable[[], Case]) -> Callable[[], Case]:
    LOOPS[build.__name__] = build
    return build


@loop
def compiled_by_aot() -> Case:
    torch._dynamo.reset()
    return plain_loop(torch.compile(mlp(), backend="aot_eager"))  # type: ignore[arg-type]


@loop
def compiled_inside() -> Case:
    torch._dynamo.reset()
    model = mlp()
    model[2] = torch.compile(model[2], backend="eager")  # type: ignore[assignment]
    return plain_loop(model)


@loop
def retained_graph() -> Case:
    """Two losses through one graph, in two backward passes."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        output = model(torch.randn(8, 6))
        output.square().mean().backward(retain_graph=True)
        loss = output.abs().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@loop
def averaged_model() -> Case:
    """An exponential average is copied from the watched model and updated from it."""
    model = mlp()
    built = plain_loop(model)
    averages: list[Any] = []

    def iterate() -> Tensor:
        loss = built.iterate()
        if not averages:
            averages.append(torch.optim.swa_utils.AveragedModel(model))
        averages[0].update_parameters(model)
        with torch.no_grad():
            averages[0](torch.randn(8, 6))
        return loss

    return Case(model, built.optimizers, iterate)


@loop
def called_functionally() -> Case:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        parameters = {name: 0.5 * p for name, p in model.named_parameters()}
        loss: Tensor = torch.func.functional_call(model, parameters, (torch.randn(8, 6),))
        loss = loss.square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@loop
def gradients_by_functional_transform() -> Case:
    """Per-sample gradients by vmap over grad, put into ``.grad`` by hand: no backward pass."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss_of(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(model, parameters, (x[None],))
        return output.square().mean()

    def iterate() -> Tensor:
        parameters = dict(model.named_parameters())
        batch = torch.randn(8, 6)
        each = torch.func.vmap(torch.func.grad(loss_of), (None, 0))(parameters, batch)
        for name, parameter in parameters.items():
            parameter.grad = each[name].mean(0)
        optimizer.step()
        return loss_of(parameters, batch[0]).detach()

    return Case(model, [optimizer], iterate)


@loop
def frozen_and_thawed_in_between() -> Case:
    model = mlp()
    built = plain_loop(model)
    count = [0]

    def iterate() -> Tensor:
        count[0] += 1
        model[0].requires_grad_(count[0] % 4 < 2)
        return built.iterate()

    return Case(model, built.optimizers, iterate)


@loop
def grows_while_training() -> Case:
    """A module is put in and a parameter group is added in the middle of the run."""
    model = mlp()
    built = plain_loop(model)
    count = [0]

    def iterate() -> Tensor:
        count[0] += 1
        if count[0] == 4:
            extra = nn.Linear(10, 10)
            model.insert(2, extra)
            built.optimizers[0].add_param_group({"params": list(extra.parameters())})
        return built.iterate()

    return Case(model, built.optimizers, iterate)


@loop
def clipped_and_scheduled() -> Case:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)

    def iterate() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = model(torch.randn(8, 6)).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        return loss

    return Case(model, [optimizer], iterate)


@loop
def quantization_aware() -> Case:
    """Weights are rounded in forward; the gradient passes straight through."""

    class Rounded(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            scale = self.weight.detach().abs().max() / 127
            rounded = torch.fake_quantize_per_tensor_affine(self.weight, float(scale), 0, -128, 127)
            return nn.functional.linear(x, rounded, self.bias)

    return plain_loop(nn.Sequential(Rounded(6, 10), nn.ReLU(), Rounded(10, 3)))


@loop
def moves_to_another_dtype() -> Case:
    """``model.double()`` in mid-run changes every parameter in place."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    count = [0]

    def iterate() -> Tensor:
        count[0] += 1
        if count[0] == 5:
            optimizer.zero_grad()
            model.double()
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6).to(model[0].weight.dtype)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@loop
def transformer_with_evaluation() -> Case:
    """Evaluation takes PyTorch's fused path, which hooks on modules would switch off."""
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    model = nn.Sequential(nn.Linear(6, 8), nn.TransformerEncoder(layer, 2))
    built = plain_loop(model, shape=(3, 5, 6))

    def iterate() -> Tensor:
        loss = built.iterate()
        model.eval()
        with torch.no_grad():
            model(torch.randn(3, 5, 6))
        model.train()
        return loss

    return Case(model, built.optimizers, iterate)


def _zoo(name: str) -> Any:
    return pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow)


@pytest.mark.parametrize("name", [_zoo(name) for name in sorted(ZOO)])
def test_the_zoo_trains_as_if_unwatched(name: str, tmp_path: Path) -> None:
    if "scripted" in name:  # its first runs in a process differ: the JIT is still profiling
        train(ZOO[name](), STEPS)
    prove_unchanged(ZOO[name], tmp_path, steps=STEPS)


@pytest.mark.parametrize("name", sorted(LOOPS))
def test_more_loops_train_as_if_unwatched(name: str, tmp_path: Path) -> None:
    prove_unchanged(LOOPS[name], tmp_path, steps=STEPS)


OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam")
)  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_as_if_unwatched(name: str, tmp_path: Path) -> None:
    def build() -> Case:
        model = mlp()
        matrices = [p for p in model.parameters() if p.dim() == 2]  # Muon takes nothing else
        parameters = matrices if name == "Muon" else list(model.parameters())
        return plain_loop(model, getattr(torch.optim, name)(parameters, lr=1e-3))

    prove_unchanged(build, tmp_path, steps=6, every=0)
