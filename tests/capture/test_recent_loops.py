"""Loops as people write them now: experts, adapters, offloading, parts frozen in turn, and more.

Each is trained beside an unwatched twin for 20 steps: same bits, nothing left behind, and the
numbers are those of an oracle in the twin, or of the loop itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from breadth import Loops, _recorded, prove, prove_unchanged
from oracle import norm
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer
from zoo import Case, mlp, plain_loop

import inspector

STEPS = 20
LOOPS = Loops()
exact, other = LOOPS.has_exact, LOOPS.has


def loop(
    model: nn.Module,
    *optimizers: Optimizer,
    batch: Callable[[], Tensor] = lambda: torch.randn(8, 6),
    before: Callable[[int], Any] = lambda _step: None,
    call: Callable[[Tensor], Tensor] | None = None,
) -> Case:
    """Steps all optimizers, the first one last; ``before`` is called before each step."""
    count = [0]

    def iterate() -> Tensor:
        before(count[0])
        count[0] += 1
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = (call or model)(batch()).float().square().mean()
        loss.backward()
        for optimizer in reversed(optimizers):
            optimizer.step()
        return loss

    return Case(model, list(optimizers), iterate)


# ---------------------------------------------------------------- models


class Experts(nn.Module):
    """Each sample goes to one of them; in some steps, and in the first, one has none."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.ParameterDict({"weight": nn.Parameter(torch.randn(6, 3) * 0.5)})
        self.experts = nn.ModuleDict(
            {f"e{i}": nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)) for i in range(3)}
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        share, which = (x @ self.gate["weight"]).softmax(-1).max(-1)
        mixed = x
        for number, expert in enumerate(self.experts.values()):
            rows = (which == number).nonzero().flatten()
            if len(rows):
                mixed = mixed.index_add(0, rows, expert(x[rows]) * share[rows, None])
        return self.head(mixed)  # type: ignore[no-any-return]


@exact
def experts() -> Case:
    return plain_loop(Experts(), shape=(4, 6))


@exact
def tied_under_two_names_and_orthogonal() -> Case:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(12, 6)
            self.block = parametrizations.orthogonal(nn.Linear(6, 6))
            self.out = nn.Linear(6, 12, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.block(self.embed(x)))  # type: ignore[no-any-return]

    model = Tied()
    return loop(model, AdamW(model.parameters(), 1e-2), batch=lambda: torch.randint(0, 12, (4, 5)))


@exact
def pruned() -> Case:
    model = mlp()
    prune.l1_unstructured(model[0], "weight", 0.4)  # type: ignore[no-untyped-call]
    return plain_loop(model)


class Adapter(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
        self.b = nn.Parameter(torch.zeros(base.out_features, 2))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.drop(x) @ self.a.T @ self.b.T  # type: ignore[no-any-return]


@exact
def adapters() -> Case:
    model = nn.Sequential(Adapter(nn.Linear(6, 10)), nn.ReLU(), Adapter(nn.Linear(10, 3)))
    return loop(model, AdamW([p for p in model.parameters() if p.requires_grad], 1e-2))


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, low: float) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x.clamp(min=low), x < low

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.low = inputs[1]
        ctx.save_for_backward(inputs[0])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradient * (x >= ctx.low), None


@exact
def function_with_its_own_context() -> Case:
    class Clamped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Clamp.apply(x, 0.0)[0]  # type: ignore[no-any-return, no-untyped-call]

    return plain_loop(nn.Sequential(nn.Linear(6, 10), Clamped(), nn.Linear(10, 3)))


@exact
def channels_last() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(2)
    )
    model(torch.randn(2, 3, 6, 6))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layout = torch.channels_last
    return loop(
        model, SGD(model.parameters(), 0.05),
        batch=lambda: torch.randn(4, 3, 6, 6).to(memory_format=layout),
    )  # fmt: skip


@exact
def attention_that_is_fast_in_evaluation() -> Case:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(6, 8)
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
            self.leave = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.enter(x)
            mixed, _ = self.attention(query=h, key=h, value=h, need_weights=False)
            return self.leave(mixed)  # type: ignore[no-any-return]

    model = Attend()

    def evaluate(_step: int) -> None:
        model.eval()
        with torch.inference_mode():
            model(torch.randn(3, 5, 6))
        model.train()

    optimizer = SGD(model.parameters(), 0.05)
    return loop(model, optimizer, batch=lambda: torch.randn(3, 5, 6), before=evaluate)


# ---------------------------------------------------------------- loops


@exact
def offloaded_activations() -> Case:
    """What is taken back is gone, as from a stack on a disk: it cannot be looked at twice."""
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> int:
        kept[len(kept)] = tensor.clone()
        return len(kept) - 1

    def offload(x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(pack, kept.pop):
            return model(x).pow(2)  # type: ignore[no-any-return]

    def nothing_is_left(_step: int) -> None:
        assert not kept

    return loop(model, SGD(model.parameters(), 0.05), call=offload, before=nothing_is_left)


@exact
def frozen_in_turn() -> Case:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(12)))

    def turn(step: int) -> None:
        for number, part in enumerate(model):
            part.requires_grad_(number % 3 == step // 4 % 3)

    return loop(model, SGD(model.parameters(), 0.05, momentum=0.9), before=turn)


@exact
def trained_in_eval_mode() -> Case:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Dropout(0.5), nn.Linear(10, 3))
    return plain_loop(model.eval())


@exact
def only_parts_are_called() -> Case:
    model = nn.ModuleDict({"encoder": nn.Linear(6, 4), "decoder": nn.Linear(4, 6)})

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: Tensor) -> Tensor:
            raise NotImplementedError

    both = Both()
    optimizer = SGD(both.parameters(), 0.05)
    return loop(both, optimizer, call=lambda x: model["decoder"](model["encoder"](x).relu()))


@other
def parameters_beside_the_model() -> Case:
    model = mlp()
    own = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    call: Any = torch.func.functional_call
    return loop(model, Adam(own.values(), 1e-2), call=lambda x: call(model, own, (x,)))


@other
def muon_beside_adamw() -> Case:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    return loop(model, Muon(matrices, lr=1e-2), AdamW(rest, lr=1e-2))


@other
def moved_to_another_optimizer() -> Case:
    """Both know all parameters; they step in turns."""
    model = mlp()
    one, two = SGD(model.parameters(), 0.05, momentum=0.9), Adam(model.parameters(), 1e-2)
    count = [0]

    def iterate() -> Tensor:
        count[0] += 1
        for optimizer in (two, one)[count[0] % 2 :]:
            optimizer.zero_grad()
            loss: Tensor = model(torch.randn(8, 6)).square().mean()
            loss.backward()
            optimizer.step()
        return loss

    return Case(model, [one, two], iterate)


@other
def parameter_replaced_in_a_new_group() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), 0.05)

    def replace(step: int) -> None:
        if step == 6:
            model[0].weight = nn.Parameter(model[0].weight.detach() * 0.5)
            optimizer.add_param_group({"params": [model[0].weight], "lr": 0.01})

    return loop(model, optimizer, before=replace)


@other
def parameter_replaced_in_its_group() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), 0.05)

    def replace(step: int) -> None:
        if step == 6:
            model[0].weight = nn.Parameter(model[0].weight.detach() * 0.5)
            optimizer.param_groups[0]["params"][0] = model[0].weight

    return loop(model, optimizer, before=replace)


@other
def halved_in_between() -> Case:
    model = mlp()

    def convert(step: int) -> None:
        if step in (6, 12):
            model.to(torch.half if step == 6 else torch.bfloat16)

    def batch() -> Tensor:
        return torch.randn(8, 6).to(model[0].weight.dtype)

    return loop(model, SGD(model.parameters(), 0.05), before=convert, batch=batch)


@other
def learns_to_learn() -> Case:
    model = mlp()
    call: Any = torch.func.functional_call

    def adapted(x: Tensor) -> Tensor:
        fast = dict(model.named_parameters())
        for _ in range(2):
            inner = call(model, fast, (torch.randn(8, 6),)).square().mean()
            slopes = torch.autograd.grad(inner, list(fast.values()), create_graph=True)
            fast = {n: p - 0.1 * s for (n, p), s in zip(fast.items(), slopes, strict=True)}
        return call(model, fast, (x,))  # type: ignore[no-any-return]

    return loop(model, Adam(model.parameters(), 1e-2), call=adapted)


@other
def averaged_weights() -> Case:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))
    tools = torch.optim.swa_utils
    mean = tools.AveragedModel(
        model, use_buffers=True, multi_avg_fn=tools.get_ema_multi_avg_fn(0.9)
    )
    optimizer = SGD(model.parameters(), 0.1)
    schedule = tools.SWALR(optimizer, 0.01, anneal_epochs=5)

    def average(step: int) -> None:
        if step:
            mean.update_parameters(model)
            schedule.step()
        if step % 5 == 4:
            tools.update_bn([torch.randn(8, 6)], mean)
        if step == 15:
            model.load_state_dict(mean.module.state_dict())

    return loop(model, optimizer, before=average)


@other
def inference_mode_by_mistake() -> Case:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Linear(10, 3))

    def mistake(step: int) -> None:
        with torch.inference_mode():
            made = model(torch.randn(8, 6)).repeat(1, 2)
            if step == 4:
                with pytest.raises(RuntimeError, match="does not require grad"):
                    model(torch.randn(8, 6)).mean().backward()
        if step == 7:
            with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
                model(made)

    return loop(model, SGD(model.parameters(), 0.05), before=mistake)


@other
def line_search() -> Case:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=4)

    def iterate() -> Tensor:
        batch = torch.randn(8, 6)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(batch).square().mean()
            loss.backward()
            return loss

        return optimizer.step(closure)  # type: ignore[arg-type, return-value]

    return Case(model, [optimizer], iterate)


@other
def copied_and_taken_back() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)
    kept: list[Any] = []

    def copies(step: int) -> None:
        if step == 4:
            kept.extend((copy.deepcopy(model), copy.deepcopy(optimizer)))
        if step == 9:
            model.load_state_dict(kept[0].state_dict())
            optimizer.load_state_dict(kept[1].state_dict())
        if kept:
            kept[0](torch.randn(2, 6)).sum().backward()
            kept[1].step()

    return loop(model, optimizer, before=copies)


@other
def nested_batches() -> Case:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

    def values(x: Tensor) -> Tensor:
        batch = torch.nested.nested_tensor([x[:3], x[3:]], layout=torch.jagged)
        return model(batch).values()  # type: ignore[no-any-return]

    return loop(model, SGD(model.parameters(), 0.05), call=values)


# ---------------------------------------------------------------- proofs


@pytest.mark.parametrize("name", sorted(LOOPS.exact))
def test_same_bits_and_the_numbers_of_an_oracle(name: str, tmp_path: Path) -> None:
    prove(LOOPS.exact[name], tmp_path, steps=STEPS)


@pytest.mark.parametrize("name", sorted(LOOPS.others))
def test_same_bits_with_the_automatic_schedule(name: str, tmp_path: Path) -> None:
    prove_unchanged(LOOPS.others[name], tmp_path, steps=STEPS, every=0)


@pytest.mark.parametrize("name", sorted(LOOPS.others))
def test_the_norms_are_those_of_the_loop(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    case = LOOPS.others[name]()
    now: dict[tuple[str, str], float] = {}
    steps: list[dict[tuple[str, str], float]] = []

    def of(optimizer: Optimizer) -> list[tuple[str, Tensor]]:
        ours = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [(n, p) for n, p in case.model.named_parameters() if id(p) in ours]

    def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if len(args) == 1 and not kwargs:  # a closure's gradients are not there yet
            for parameter, tensor in of(optimizer):
                if tensor.grad is not None:
                    now["grad_norm_clipped", parameter] = norm(tensor.grad)

    def after(optimizer: Optimizer, *_: Any) -> None:
        now.update({("weight_norm", parameter): norm(p) for parameter, p in of(optimizer)})
        if optimizer is case.optimizers[0]:
            steps.append(dict(now))
            now.clear()

    for optimizer in case.optimizers:
        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
    with inspector.watch(
        case.model, case.optimizers, run_dir=tmp_path, name="run", every=1
    ) as watch:
        for _ in range(STEPS):
            watch.record(loss=float(case.iterate().detach()))
    with inspector.open_run(tmp_path / "run") as run:
        recorded = _recorded(run)
    assert len(recorded) == len(steps)
    for step, (found, right) in enumerate(zip(recorded, steps, strict=True)):
        for key, expected in right.items():
            if name.startswith("parameter_replaced") and step == 6 and key[1] == "0.weight":
                continue  # noticed at the end of that step
            assert key in found, (step, key)
            assert math.isclose(found[key], expected, rel_tol=3e-3, abs_tol=1e-6), (step, key)
