"""Loops as they are written in one field or another: reinforcement learning, diffusion, and more.

Each is trained beside an unwatched twin for 20 steps: same bits, nothing left behind, and the
numbers of every module and parameter are those of an oracle in the twin.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from breadth import Loops, prove, prove_unchanged
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from zoo import Case

import inspector

STEPS = 20
LOOPS = Loops()
exact, other = LOOPS.has_exact, LOOPS.has


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 16), nn.Tanh())
        self.actor, self.critic = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, seen: Tensor) -> tuple[Any, Tensor]:
        hidden = self.trunk(seen)
        chances = torch.distributions.Categorical(logits=self.actor(hidden))
        return chances, self.critic(hidden).squeeze(-1)


@exact
def proximal_policy() -> Case:
    """Several epochs over one rollout, which is collected in train mode without gradients."""
    model = ActorCritic()
    optimizer = Adam(model.parameters(), 3e-4, eps=1e-5)
    batches: list[tuple[Tensor, ...]] = []

    def collect() -> None:
        seen = torch.randn(32, 4)
        with torch.no_grad():
            chances, values = model(seen)
            acts = chances.sample()
        gains = torch.randn(32)
        for _ in range(3):
            for part in torch.randperm(32).reshape(4, 8):
                columns = seen, acts, chances.log_prob(acts), gains, gains + values
                batches.append(tuple(column[part] for column in columns))

    def iterate() -> Tensor:
        if not batches:
            collect()
        seen, acts, before, gains, returns = batches.pop()
        chances, values = model(seen)
        ratio = (chances.log_prob(acts) - before).exp()
        policy = -torch.min(ratio * gains, ratio.clamp(0.8, 1.2) * gains).mean()
        loss: Tensor = policy + 0.5 * F.mse_loss(values, returns) - 0.01 * chances.entropy().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@exact
def deep_q_learning() -> Case:
    """A target network beside the one that learns, followed softly."""
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    target = copy.deepcopy(model).requires_grad_(False)
    optimizer = AdamW(model.parameters(), 1e-3, amsgrad=True)

    def iterate() -> Tensor:
        seen, then, reward = torch.randn(16, 4), torch.randn(16, 4), torch.randn(16)
        chosen = model(seen).gather(1, torch.randint(0, 3, (16, 1))).squeeze(1)
        with torch.no_grad():
            best = model(then).argmax(1, keepdim=True)
            wanted = reward + 0.99 * target(then).gather(1, best).squeeze(1)
        loss = F.smooth_l1_loss(chosen, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_value_(model.parameters(), 100)
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(model.parameters(), target.parameters(), strict=True):
                theirs.lerp_(mine, 0.005)
        return loss

    return Case(model, [optimizer], iterate)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Embedding(10, 8)
        self.down, self.up = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, noisy: Tensor, *, time: Tensor) -> Tensor:
        hidden = self.norm(self.down(noisy)) + self.time(time)[..., None, None]
        return self.up(F.silu(hidden))  # type: ignore[no-any-return]


def _diffusion(*, cast: bool) -> Case:
    model = Denoiser().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda mean, new, _count: torch.lerp(mean, new, 0.01)
    )
    optimizer = AdamW(model.parameters(), 1e-3)
    count = [0]

    def iterate() -> Tensor:
        count[0] += 1
        optimizer.zero_grad()
        for _ in range(2):  # accumulated
            clean, noise = torch.randn(4, 1, 6, 6), torch.randn(4, 1, 6, 6)
            time = torch.randint(0, 10, (4,))
            share = (time / 10)[:, None, None, None]
            noisy = (clean * (1 - share) + noise * share).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                guess = model(noisy, time=time)
            loss = F.mse_loss(guess.float(), noise) / 2
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        if count[0] % 5 == 0:
            average.eval()
            with torch.inference_mode():
                average(torch.randn(2, 1, 6, 6), time=torch.zeros(2, dtype=torch.long))
        return loss

    return Case(model, [optimizer], iterate)


@exact
def diffusion() -> Case:
    return _diffusion(cast=False)


@exact
def diffusion_in_bfloat16() -> Case:
    return _diffusion(cast=True)


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(6, 8), nn.EmbeddingBag(20, 8)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor, words: Tensor) -> dict[str, Tensor]:
        one, two = F.normalize(self.image(images)), F.normalize(self.text(words))
        return {"logits": self.scale.exp() * one @ two.T, "image": one, "text": two}


@exact
def contrastive() -> Case:
    model = TwoTowers()
    optimizer = AdamW(model.parameters(), 1e-3)

    def iterate() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        logits = model(torch.randn(8, 6), torch.randint(0, 20, (8, 4)))["logits"]
        same = torch.arange(8)
        loss = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            model.scale.clamp_(0, 4.6)
        return loss

    return Case(model, [optimizer], iterate)


@exact
def momentum_contrast() -> Case:
    """Two views through one encoder, keys from a slow copy inside the same module."""
    model = nn.ModuleDict({"fast": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))})
    model["slow"] = copy.deepcopy(model["fast"]).requires_grad_(False)
    encoder: Any = model["fast"]
    optimizer = SGD(encoder.parameters(), 0.05, momentum=0.9)

    def iterate() -> Tensor:
        x = torch.randn(8, 6)
        one, two = (encoder(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        with torch.no_grad():
            for mine, theirs in zip(encoder.parameters(), model["slow"].parameters(), strict=True):
                theirs.lerp_(mine, 0.01)
            keys = F.normalize(model["slow"](x))
        loss = sum(F.cross_entropy(F.normalize(q) @ keys.T, torch.arange(8)) for q in (one, two))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        return loss  # type: ignore[return-value]

    return Case(model, [optimizer], iterate)


@other
def gradient_penalty() -> Case:
    """A Wasserstein critic: five steps for one of the generator, each differentiated twice."""
    model = nn.ModuleDict(
        {
            "generator": nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
            "critic": nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 1)),
        }
    )
    make, judge = model["generator"], model["critic"]
    first = Adam(make.parameters(), 1e-3, betas=(0.0, 0.9))
    second = Adam(judge.parameters(), 1e-3, betas=(0.0, 0.9))

    def penalty(real: Tensor, fake: Tensor) -> Tensor:
        between = torch.lerp(real, fake, torch.rand(8, 1)).requires_grad_()
        slopes = torch.autograd.grad(judge(between).sum(), between, create_graph=True)[0]
        gap: Tensor = slopes.norm(dim=1) - 1
        return gap.square().mean()

    def iterate() -> Tensor:
        for _ in range(5):
            real, fake = torch.randn(8, 4), make(torch.randn(8, 3)).detach()
            loss = judge(fake).mean() - judge(real).mean() + 10 * penalty(real, fake)
            second.zero_grad()
            loss.backward()
            second.step()
        for parameter in judge.parameters():
            parameter.requires_grad_(False)
        loss = -judge(make(torch.randn(8, 3))).mean()
        first.zero_grad()
        loss.backward()
        first.step()
        for parameter in judge.parameters():
            parameter.requires_grad_(True)
        return loss  # type: ignore[no-any-return]

    return Case(model, [first, second], iterate)


@other
def physics_informed() -> Case:
    """The equation's residual takes second derivatives by the inputs."""
    model = nn.Sequential(
        nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    )
    optimizer = Adam(model.parameters(), 1e-3)

    def iterate() -> Tensor:
        at = torch.rand(16, 2, requires_grad=True)
        value = model(at)
        slope = torch.autograd.grad(value.sum(), at, create_graph=True)[0]
        bend = torch.autograd.grad(slope[:, 0].sum(), at, create_graph=True)[0]
        loss = (slope[:, 1] - 0.1 * bend[:, 0] + value[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@other
def gradients_put_in_by_hand() -> Case:
    """``autograd.grad`` in the place of ``backward()``, as in meta learning and optimal control."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = SGD(model.parameters(), 0.05)

    def iterate() -> Tensor:
        loss: Tensor = model(torch.randn(8, 6)).square().mean()
        parameters = list(model.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = slope
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@other
def sharpness_aware() -> Case:
    """Two passes a step by hand: up the slope, back again, and down by the slope up there."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)

    def iterate() -> Tensor:
        x = torch.randn(8, 6)
        loss: Tensor = model(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        steps = []
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                steps.append(0.05 * parameter.grad / (parameter.grad.norm() + 1e-12))
                parameter.add_(steps[-1])
        optimizer.zero_grad()
        model(x).square().mean().backward()
        with torch.no_grad():
            for parameter, step in zip(model.parameters(), steps, strict=True):
                parameter.sub_(step)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return Case(model, [optimizer], iterate)


class Language(nn.Module):
    """Embedding and head share their weights; the loss is made inside, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        mask = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1])
        logits = self.head(self.block(self.embed(input_ids), mask, is_causal=True))
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())}


@exact
def tied_language_model() -> Case:
    model = Language()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, 1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5))

    def iterate() -> Tensor:
        ids = torch.randint(0, 30, (4, 5 + int(torch.randint(0, 4, ()))))
        loss = model(input_ids=ids, labels=ids)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        model.zero_grad()
        return loss  # type: ignore[no-any-return]

    return Case(model, [optimizer], iterate)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, x: Tensor, scale: Tensor) -> Tensor:
        return (x / scale).round().clamp(-127, 127) * scale

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class FakeQuantized(nn.Module):
    """Weights rounded on their way, straight through backwards, with an observer in a buffer."""

    largest: Tensor

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.largest.copy_(torch.maximum(self.largest * 0.9, x.abs().amax()))
        x = Rounded.apply(x, self.largest / 127)
        weight = Rounded.apply(self.inner.weight, self.inner.weight.detach().abs().amax() / 127)
        return F.linear(x, weight, self.inner.bias)


@exact
def quantization_aware() -> Case:
    model = nn.Sequential(FakeQuantized(nn.Linear(6, 8)), nn.ReLU(), FakeQuantized(nn.Linear(8, 3)))
    optimizer = SGD(model.parameters(), 0.05)

    def iterate() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(torch.randn(8, 6)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@exact
def training_and_validation_in_one_loop() -> Case:
    """The tutorial's phases, switched by ``set_grad_enabled``."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)
    plan: list[str] = []

    def iterate() -> Tensor:
        while True:
            if not plan:
                plan.extend(["val"] * 2 + ["train"] * 4)
            phase = plan.pop()
            model.train(phase == "train")
            optimizer.zero_grad()
            with torch.set_grad_enabled(phase == "train"):
                loss: Tensor = F.cross_entropy(model(torch.randn(8, 6)), torch.randint(0, 3, (8,)))
                if phase == "train":
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    return loss

    return Case(model, [optimizer], iterate)


@exact
def distillation() -> Case:
    """A frozen teacher in eval mode inside the module, whose outputs need no gradient."""
    model = nn.ModuleDict({"teacher": nn.Linear(6, 3), "student": nn.Linear(6, 3)})

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model
            self.parts["teacher"].requires_grad_(False)

        def train(self, mode: bool = True) -> Pair:
            super().train(mode)
            self.parts["teacher"].eval()
            return self

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.parts["student"](x), self.parts["teacher"](x)

    pair = Pair().train()
    optimizer = SGD([p for p in pair.parameters() if p.requires_grad], 0.05)

    def iterate() -> Tensor:
        mine, theirs = pair(torch.randn(8, 6))
        loss = F.kl_div(mine.log_softmax(1), theirs.softmax(1), reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return Case(pair, [optimizer], iterate)


@exact
def through_time_in_pieces() -> Case:
    """Truncated backpropagation: the state is carried from step to step, detached."""
    model = nn.ModuleDict({"cell": nn.GRUCell(4, 8), "read": nn.Linear(8, 2)})
    optimizer = Adam(model.parameters(), 1e-2)
    state = [torch.zeros(5, 8)]

    def iterate() -> Tensor:
        hidden, loss = state[0].detach(), torch.zeros(())
        for _ in range(3):
            hidden = model["cell"](torch.randn(5, 4), hidden)
            loss = loss + model["read"](hidden).square().mean()
        state[0] = hidden
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


@pytest.mark.parametrize("name", sorted(LOOPS.exact))
def test_same_bits_and_the_numbers_of_an_oracle(name: str, tmp_path: Path) -> None:
    prove(LOOPS.exact[name], tmp_path, steps=STEPS)


@pytest.mark.parametrize("name", sorted(LOOPS.exact | LOOPS.others))
def test_same_bits_with_the_automatic_schedule(name: str, tmp_path: Path) -> None:
    prove_unchanged((LOOPS.exact | LOOPS.others)[name], tmp_path, steps=STEPS, every=0)


@pytest.mark.parametrize("name", sorted(LOOPS.others))
def test_same_bits_when_each_step_is_measured(name: str, tmp_path: Path) -> None:
    prove_unchanged(LOOPS.others[name], tmp_path, steps=STEPS)


def test_passes_that_leave_gradients_to_the_script_are_measured(tmp_path: Path) -> None:
    """In the first step they could be those of a penalty, whose outputs are no part of it."""
    torch.manual_seed(5)
    case = gradients_put_in_by_hand()
    means: list[float] = []
    case.model.register_forward_hook(lambda _m, _a, output: means.append(output.mean().item()))
    with inspector.watch(case.model, case.optimizers, run_dir=tmp_path, every=1) as watch:
        for _ in range(STEPS):
            watch.record(loss=case.iterate())
    run = inspector.open_run(watch.run_path)
    found = run.series("activation_mean", "2")
    assert list(found.steps) == list(range(1, STEPS))
    assert found.values.tolist() == pytest.approx(means[1:], rel=1e-5, abs=1e-7)
    assert len(run.series("output_grad_norm", "2").steps) == STEPS - 1
