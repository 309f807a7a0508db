"""Odd models and odd loops: what capture must survive, and measure right or not at all.

Each case is built from a seed, so that a twin can be trained without being watched.
"""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

SGD = torch.optim.SGD


@dataclass
class Case:
    """A model, its optimizers and one iteration of its loop, which steps the first optimizer."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    iterate: Callable[[], Tensor]
    scaler: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


ZOO: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    ZOO[build.__name__] = build
    return build


def plain_loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    shape: tuple[int, ...] = (8, 6),
    pick: Callable[[Any], Tensor] = lambda output: output,
) -> Case:
    """The ordinary loop on random input; the loss is the mean square of the picked output."""
    chosen = optimizer or SGD(model.parameters(), lr=0.05, momentum=0.9)

    def iterate() -> Tensor:
        chosen.zero_grad()
        loss = pick(model(torch.randn(shape))).square().mean()
        loss.backward()
        chosen.step()
        return loss

    return Case(model, [chosen], iterate)


class Net(nn.Module):
    """Two linear modules, with ``between`` in the middle of ``forward``."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.second = nn.Linear(10, 3)
        self.between = between

    def forward(self, x: Tensor) -> Any:
        return self.second(self.between(self.first(x)))


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 3)
    )


@case
def ordinary() -> Case:
    return plain_loop(mlp())


@case
def adam_dropout_batchnorm() -> Case:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Dropout(0.3), nn.Linear(10, 3))
    return plain_loop(model, torch.optim.Adam(model.parameters(), lr=0.01))


@case
def inplace_relu() -> Case:
    return plain_loop(nn.Sequential(nn.Linear(6, 10), nn.ReLU(inplace=True), nn.Linear(10, 3)))


class Residual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(10)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        y = self.norm(h)
        y += h
        return self.second(self.act(y))


@case
def inplace_residual() -> Case:
    return plain_loop(Residual())


@case
def views() -> Case:
    return plain_loop(
        nn.Sequential(
            nn.Linear(6, 12),
            nn.Unflatten(1, (3, 4)),
            nn.Flatten(),
            nn.ReLU(inplace=True),
            nn.Identity(),
            nn.Linear(12, 2),
        )
    )


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(6, 6)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.act(self.cell(x))
        return x


@case
def reused_module() -> Case:
    return plain_loop(Reused())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 10, bias=False)
        self.decoder = nn.Linear(10, 6, bias=False)
        self.decoder.weight = nn.Parameter(torch.empty(6, 10))
        self.mirror = nn.Linear(6, 10, bias=False)
        self.mirror.weight = self.encoder.weight
        nn.init.normal_(self.decoder.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x) + self.mirror(x))


@case
def shared_parameters() -> Case:
    return plain_loop(Tied())


class Direct(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.second.forward(torch.relu(self.first.forward(x)))


@case
def forward_called_directly() -> Case:
    return plain_loop(Direct())


Pair = namedtuple("Pair", ["score", "hidden"])


@dataclass
class Output:
    score: Tensor
    hidden: Tensor
    name: str = "output"


class Returning(nn.Module):
    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inner = Net()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        hidden = self.inner(x)
        return self.wrap(hidden * 2, hidden)


@case
def output_dict() -> Case:
    return plain_loop(Returning(lambda s, h: {"score": s, "h": h}), pick=lambda o: o["score"])


@case
def output_tuple() -> Case:
    return plain_loop(Returning(lambda s, h: (s, [h, None])), pick=lambda o: o[0])


@case
def output_namedtuple() -> Case:
    return plain_loop(Returning(Pair), pick=lambda o: o.score)


@case
def output_dataclass() -> Case:
    return plain_loop(Returning(Output), pick=lambda o: o.score)


class WithUnused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(4, 4)
        self.first.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)) * self.scale)


@case
def frozen_unused_and_own_parameter() -> Case:
    return plain_loop(WithUnused())


@case
def lazy() -> Case:
    model = nn.Sequential(nn.LazyLinear(10), nn.ReLU(), nn.LazyLinear(3))
    return plain_loop(model)


@case
def lazy_batchnorm() -> Case:
    return plain_loop(nn.Sequential(nn.Linear(6, 10), nn.LazyBatchNorm1d(), nn.Linear(10, 3)))


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6, sparse=True)
        self.out = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.table(tokens).mean(1))


@case
def sparse_gradients() -> Case:
    model = Embedded()
    dense = SGD(model.out.parameters(), lr=0.05)
    sparse = torch.optim.SparseAdam(list(model.table.parameters()), lr=0.05)

    def iterate() -> Tensor:
        dense.zero_grad()
        sparse.zero_grad()
        loss = model(torch.randint(0, 20, (8, 5))).square().mean()
        loss.backward()
        sparse.step()
        dense.step()
        return loss

    return Case(model, [dense, sparse], iterate)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10, dtype=torch.complex64)
        self.second = nn.Linear(10, 3, dtype=torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.second(self.first(x.to(torch.complex64))))


@case
def complex_parameters() -> Case:
    return plain_loop(Complex())


def _in_dtype(dtype: torch.dtype) -> Case:
    model = mlp().to(dtype)
    optimizer = SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6).to(dtype)).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@case
def bfloat16() -> Case:
    return _in_dtype(torch.bfloat16)


@case
def float16() -> Case:
    return _in_dtype(torch.float16)


@case
def float64() -> Case:
    return _in_dtype(torch.float64)


class Codes(Net):
    """Integer and float8 parameters beside ordinary ones, as quantized models hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.arange(6), requires_grad=False)
        self.eighth = nn.Parameter(torch.ones(4).to(torch.float8_e4m3fn), requires_grad=False)
        self.mask = nn.Parameter(torch.ones(10, dtype=torch.bool), requires_grad=False)
        self.argmax = ArgMax()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x[:, self.codes]) * self.mask
        self.argmax(hidden)
        return self.second(hidden)


class ArgMax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


@case
def integer_and_float8_parameters() -> Case:
    model = Codes()
    return plain_loop(model, SGD([p for p in model.parameters() if p.requires_grad], lr=0.05))


@case
def partly_on_meta() -> Case:
    model = WithUnused()
    model.unused = nn.Linear(4, 4, device="meta")
    optimizer = SGD([*model.first.parameters(), *model.second.parameters(), model.scale], lr=0.05)
    return plain_loop(model, optimizer)


@case
def parametrized() -> Case:
    model = mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[2])
    return plain_loop(model)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Dropout(0.2)) for _ in range(3)
        )
        self.head = nn.Linear(10, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


@case
def checkpoint_reentrant() -> Case:
    return plain_loop(Checkpointed(True))


@case
def checkpoint_non_reentrant() -> Case:
    return plain_loop(Checkpointed(False))


class OnlyCheckpointed(Checkpointed):
    def __init__(self) -> None:
        super().__init__(True)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x.requires_grad_(), use_reentrant=True)


@case
def checkpoint_all_nested() -> Case:
    return plain_loop(OnlyCheckpointed())


@case
def compiled_before() -> Case:
    torch._dynamo.reset()
    model = mlp()
    return plain_loop(torch.compile(model, backend="eager"))  # type: ignore[arg-type]


@case
def compiled_in_place() -> Case:
    torch._dynamo.reset()
    model = mlp()
    model.compile(backend="eager")
    return plain_loop(model)


@case
def compiled_after_watching() -> Case:
    torch._dynamo.reset()
    model = mlp()
    compiled: list[Any] = []
    optimizer = SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        if not compiled:
            compiled.append(torch.compile(model, backend="eager", fullgraph=True))
        optimizer.zero_grad()
        loss = compiled[0](torch.randn(8, 6)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@case
def compiled_and_called_before_watching() -> Case:
    torch._dynamo.reset()
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    state = torch.get_rng_state()
    compiled(torch.randn(8, 6)).sum().backward()
    torch.set_rng_state(state)
    optimizer = SGD(model.parameters(), lr=0.05)
    built = plain_loop(compiled, optimizer)  # type: ignore[arg-type]
    return Case(model, [optimizer], built.iterate)


@case
def scripted() -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(mlp())
    return plain_loop(model)


@case
def scripted_inside() -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Linear(10, 10), nn.ReLU()))
    return plain_loop(nn.Sequential(nn.Linear(6, 10), inner, nn.Linear(10, 3)))


@case
def lbfgs() -> Case:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    batch = torch.randn(8, 6)

    def iterate() -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            return loss

        return optimizer.step(closure)  # type: ignore[no-any-return]

    return Case(model, [optimizer], iterate)


@case
def gan() -> Case:
    generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
    critic = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    pair = nn.ModuleDict({"generator": generator, "critic": critic})
    of_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01)

    def iterate() -> Tensor:
        of_critic.zero_grad()
        fake = generator(torch.randn(8, 4))
        loss = (
            F.softplus(critic(fake.detach())).mean() + F.softplus(-critic(torch.randn(8, 6))).mean()
        )
        loss.backward()
        of_critic.step()
        of_generator.zero_grad()
        F.softplus(-critic(fake)).mean().backward()
        of_generator.step()
        return loss

    return Case(pair, [of_critic, of_generator], iterate)


@case
def gan_critic_only() -> Case:
    both = gan()
    return Case(both.model["critic"], both.optimizers[:1], both.iterate)  # type: ignore[index]


@case
def step_inside_backward() -> Case:
    model = mlp()
    first = SGD(model[0].parameters(), lr=0.05)
    optimizers = [SGD([p], lr=0.05) for p in list(model.parameters())[2:]]

    def hook(optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
        def step(_: Tensor) -> None:
            optimizer.step()
            optimizer.zero_grad()

        return step

    for optimizer in optimizers:
        optimizer.param_groups[0]["params"][0].register_post_accumulate_grad_hook(hook(optimizer))

    def iterate() -> Tensor:
        loss = model(torch.randn(8, 6)).square().mean()
        loss.backward()
        first.step()
        first.zero_grad()
        return loss

    return Case(model, [first], iterate)


@case
def accumulation() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        for _ in range(4):
            loss = model(torch.randn(8, 6)).square().mean() / 4
            loss.backward()
        optimizer.step()
        model.zero_grad()
        return loss

    return Case(model, [optimizer], iterate)


def _amp(fused: bool) -> Case:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    count = [0]

    def iterate() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6)).square().mean()
        count[0] += 1
        if count[0] in (3, 9):
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Case(model, [optimizer], iterate, scaler=scaler)


@case
def amp_plain() -> Case:
    return _amp(False)


@case
def amp_fused() -> Case:
    return _amp(True)


@case
def autocast() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.randn(8, 6)).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@case
def evaluation_between() -> Case:
    model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Dropout(0.5), nn.Linear(10, 3))
    built = plain_loop(model)

    def iterate() -> Tensor:
        loss = built.iterate()
        model.eval()
        with torch.no_grad():
            model(torch.randn(8, 6) + 100)
        model(torch.randn(8, 6) + 100)  # a careless one: with gradients
        model.train()
        return loss

    return Case(model, built.optimizers, iterate)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, num_layers=2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [5, 4, 2], batch_first=True)
        result, _ = self.rnn(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(result, batch_first=True)
        return self.out(padded[:, 0])


@case
def packed_rnn() -> Case:
    return plain_loop(Packed(), shape=(3, 5, 6))


@case
def attention() -> Case:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    )
    return plain_loop(model, shape=(3, 5, 6))


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


@case
def custom_function() -> Case:
    return plain_loop(Net(Doubling.apply))


@case
def gradient_penalty() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.01)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        x = torch.randn(8, 6, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        loss = model(torch.randn(8, 6)).square().mean() + (slope.norm() - 1).square()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@case
def adversarial() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.01)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        x = torch.randn(8, 6, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).square().mean(), x)
        loss = model((x + 0.1 * slope.sign()).detach()).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@case
def functional_transform() -> Case:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)

    def iterate() -> Tensor:
        torch.func.vmap(lambda x: model(x), randomness="different")(torch.randn(4, 2, 6))
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@case
def data_parallel() -> Case:
    return plain_loop(nn.DataParallel(mlp()))


@case
def assigned_mid_run() -> Case:
    model = mlp()
    state = {"optimizer": SGD(model.parameters(), lr=0.05), "count": 0}
    built = plain_loop(model, state["optimizer"])  # type: ignore[arg-type]

    def iterate() -> Tensor:
        state["count"] += 1  # type: ignore[operator]
        if state["count"] == 5:
            model.load_state_dict(
                {k: v.clone() for k, v in model.state_dict().items()}, assign=True
            )
            optimizer = built.optimizers[0]
            optimizer.param_groups[0]["params"] = list(model.parameters())
        return built.iterate()

    return Case(model, built.optimizers, iterate)


@case
def many_parameters() -> Case:
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(200))
    wrapped = nn.Sequential(*model)
    return plain_loop(wrapped, SGD(wrapped.parameters(), lr=1e-3), shape=(2, 2))


class Wandering(Net):
    """A different path in every step, decided by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.extra = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        hidden = self.first(x)
        for _ in range(self.steps % 3):
            hidden = torch.tanh(self.extra(hidden))
        return self.second(hidden)


@case
def control_flow() -> Case:
    return plain_loop(Wandering())


@case
def empty_and_scalar_outputs() -> Case:
    class Odd(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.first(x[:0])
            return super().forward(x)

    return plain_loop(Odd())


class Diagonal(nn.Module):
    """Root parameters and no children at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@case
def root_is_the_only_module() -> Case:
    return plain_loop(Diagonal())
