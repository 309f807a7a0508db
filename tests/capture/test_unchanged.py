"""Watching changes nothing: the training, the objects, and what is left afterwards."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import observe
from torch import Tensor, nn
from zoo import ZOO, Case

import inspector

STEPS = 20
HOOKS = (
    "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_state_dict_hooks",
)  # fmt: skip


def train(case: Case, steps: int) -> list[float]:
    return [case.iterate().detach().item() for _ in range(steps)]


def tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {path: value.detach()}
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return {}
    return {k: v for key, item in items for k, v in tensors(item, f"{path}/{key}").items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        other = b[name]
        assert tensor.dtype == other.dtype and tensor.shape == other.shape, name
        if tensor.is_meta:
            continue
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, other)]
        assert torch.equal(*raw), f"{name} differs"


def belongings(case: Case) -> dict[str, Any]:
    """Everything that could have been left on the objects of a case."""
    found: dict[str, Any] = {"anomaly": torch.is_anomaly_enabled(), "grad": torch.is_grad_enabled()}
    for path, module in case.model.named_modules():
        names = () if isinstance(module, torch.jit.ScriptModule) else tuple(vars(module))
        found[f"module {path}"] = (names, module.training)
        for hooks in HOOKS:
            if hasattr(module, hooks) and not isinstance(module, torch.jit.ScriptModule):
                found[f"{hooks} {path}"] = len(getattr(module, hooks))
    for name, parameter in case.model.named_parameters():
        found[f"parameter {name}"] = (
            tuple(vars(parameter)),
            parameter._backward_hooks,
            None if parameter._post_accumulate_grad_hooks is None  # type: ignore[attr-defined]
            else len(parameter._post_accumulate_grad_hooks),  # type: ignore[attr-defined]
            parameter.requires_grad,
        )  # fmt: skip
    for position, optimizer in enumerate(case.optimizers):
        found[f"optimizer {position}"] = {
            name: len(value) if "hooks" in name else None for name, value in vars(optimizer).items()
        }
    return found


@pytest.mark.parametrize("name", sorted(ZOO))
def test_watched_training_is_bit_identical(name: str) -> None:
    if "scripted" in name:  # its first runs in a process differ: the JIT is still profiling
        train(ZOO[name](), STEPS)
    torch.manual_seed(1)
    bare = ZOO[name]()
    losses = train(bare, STEPS)
    random = torch.get_rng_state()

    torch.manual_seed(1)
    watched = ZOO[name]()
    observer, listening = observe(watched, scaler=watched.scaler)
    seen = train(watched, STEPS)
    observer.close()

    assert [failure for _, failure in listening.failures] == []
    assert str(losses) == str(seen)
    assert torch.equal(random, torch.get_rng_state())
    assert_same(tensors(bare.model.state_dict()), tensors(watched.model.state_dict()))
    for a, b in zip(bare.optimizers, watched.optimizers, strict=True):
        assert_same(tensors(a.state_dict()), tensors(b.state_dict()))
    assert belongings(bare) == belongings(watched)
    skipped = len(listening.skips) if name == "amp_plain" else 0
    assert len(listening.rows) == STEPS - skipped


def test_nothing_is_kept_alive() -> None:
    case = ZOO["ordinary"]()
    observer, _ = observe(case)
    train(case, 3)
    references = [weakref.ref(case.model), weakref.ref(case.optimizers[0])]
    references += [weakref.ref(parameter) for parameter in case.model.parameters()]
    del case
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    assert observer.closed


def test_a_hook_on_an_output_hears_of_no_other(tmp_path: Path) -> None:
    """Though the watch uses what held the hooks of one output again for a later one."""
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    outputs: list[Tensor] = []
    shared.register_forward_hook(lambda _m, _a, output: outputs.append(output))
    heard: list[tuple[int, Tensor]] = []
    watch = inspector.watch(model, optimizer, run_dir=tmp_path, every=1)
    for step in range(30):
        outputs.clear()
        loss = model(torch.randn(8, 4)).square().mean()
        if step % 7 == 3:
            handle = outputs[step % 2].register_hook(lambda g, step=step: heard.append((step, g)))
        if step % 7 == 5:
            handle.remove()
        watch.record(loss=loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    watch.close()
    assert [step for step, _ in heard] == [3, 10, 17, 24]


def test_closing_twice_and_training_on() -> None:
    case = ZOO["ordinary"]()
    observer, listening = observe(case)
    train(case, 2)
    observer.close()
    observer.close()
    train(case, 2)
    assert len(listening.rows) == 2


def test_closing_between_forward_and_step() -> None:
    case = ZOO["ordinary"]()
    observer, listening = observe(case)
    train(case, 2)
    loss = case.model(torch.randn(8, 6)).sum()
    observer.close()
    loss.backward()
    case.optimizers[0].step()
    assert listening.failures == []


@pytest.mark.parametrize("name", ["ordinary", "inplace_residual", "packed_rnn"])
def test_memory_does_not_grow(name: str) -> None:
    case = ZOO[name]()
    observer, listening = observe(case)
    train(case, 20)

    def alive() -> int:
        listening.rows.clear()
        gc.collect()
        return sum(1 for thing in gc.get_objects() if isinstance(thing, (Tensor, nn.Module)))

    before = alive()
    gc.disable()
    try:
        train(case, 100)
        uncollected = sum(1 for thing in gc.get_objects() if isinstance(thing, Tensor))
    finally:
        gc.enable()
    observer.close()
    assert uncollected < before + 200
    assert alive() <= before
