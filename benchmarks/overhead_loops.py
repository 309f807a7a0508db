"""What watching costs in loops of other kinds, and in a large batch.

    python benchmarks/overhead_loops.py --write docs/performance.md

Measured as ``overhead.py`` does it: all in one process, block by block beside the bare loop.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead import about, figure_of, measure, put, report, settings, training_of
from benchmarks.overhead_models import resnet18, tiny_mlp
from benchmarks.overhead_peers import CONTENDERS, Training

MARKS = ("<!-- loops:begin -->", "<!-- loops:end -->")
KINDS = ("inspector, every step", "inspector, automatic")
DEMAND = 1.15
MICRO_BATCHES = 4
SMALL = 2  # samples of the batches with which the first steps of a large one are got over with


class Clipped(Training):
    """Gradients are clipped by their norm."""

    def step(self, before: Callable[[Tensor], Any], after: Callable[[], Any]) -> None:
        def clip() -> None:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            after()

        super().step(before, clip)


class Accumulated(Training):
    """Several batches for one step."""

    def step(self, before: Callable[[Tensor], Any], after: Callable[[], Any]) -> None:
        self.optimizer.zero_grad()
        for _ in range(MICRO_BATCHES):
            loss = F.cross_entropy(self.model(self.inputs), self.targets) / MICRO_BATCHES
            loss.backward()
        before(loss)
        after()
        self.optimizer.step()


@dataclass
class Scaled(Training):
    """Mixed precision with a GradScaler."""

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler("cpu")

    def step(self, before: Callable[[Tensor], Any], after: Callable[[], Any]) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(self.model(self.inputs), self.targets)
        before(loss)
        self.scaler.scale(loss).backward()
        after()
        self.scaler.step(self.optimizer)
        self.scaler.update()


class Pair(nn.Module):
    """Two parts that are trained against each other, and never called as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64))
        self.discriminator = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


@dataclass
class Adversarial(Training):
    """Two optimizers."""

    def __post_init__(self) -> None:
        model: Any = self.model
        self.first = torch.optim.Adam(model.discriminator.parameters(), lr=1e-4)
        self.second = torch.optim.Adam(model.generator.parameters(), lr=1e-4)
        self.optimizer = [self.first, self.second]  # type: ignore[assignment]

    def step(self, before: Callable[[Tensor], Any], after: Callable[[], Any]) -> None:
        model: Any = self.model
        made = model.generator(torch.randn(64, 16))
        self.second.zero_grad()
        F.softplus(-model.discriminator(made)).mean().backward()
        self.second.step()
        self.first.zero_grad()
        real, false = model.discriminator(self.inputs), model.discriminator(made.detach())
        loss = F.softplus(-real).mean() + F.softplus(false).mean()
        before(loss)
        loss.backward()
        after()
        self.first.step()


def grouped(training: Training) -> Training:
    """Weights and biases in groups of their own."""
    weights = [p for p in training.model.parameters() if p.dim() > 1]
    biases = [p for p in training.model.parameters() if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": biases}]
    training.optimizer = torch.optim.Adam(groups, lr=1e-3)
    return training


def tiny(kind: type[Training]) -> Callable[[], Training]:
    def make() -> Training:
        made = training_of(tiny_mlp, torch.device("cpu"))
        return kind(made.model, made.optimizer, made.inputs, made.targets)

    return make


def pair() -> Training:
    torch.manual_seed(0)
    return Adversarial(Pair(), None, torch.randn(64, 64), torch.empty(0))  # type: ignore[arg-type]


def large_batch() -> Training:
    return training_of(lambda: resnet18(128), torch.device("cpu"))


LOOPS: dict[str, Callable[[], Training]] = {
    "MLP, as above": tiny(Training),
    "MLP, clip_grad_norm_()": tiny(Clipped),
    "MLP, two parameter groups": lambda: grouped(tiny(Training)()),
    f"MLP, {MICRO_BATCHES} batches a step": tiny(Accumulated),
    "MLP, bfloat16 and GradScaler": tiny(Scaled),
    "two MLPs and optimizers (GAN)": pair,
    "ResNet-18, 128 images": large_batch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block", type=float, default=0.15, help="seconds of bare steps a block")
    options = settings(parser)
    torch.set_num_threads(1)
    lines = [about(torch.device("cpu"), 1), "", "| | bare step | every step | automatic |"]
    lines.append("|---|---|---|---|")
    for name, make in LOOPS.items():
        if not re.search(options.only, name):
            continue
        large = make is large_batch  # its schedule would have to settle for minutes
        names = ("bare", *(KINDS[:1] if large else KINDS))
        contenders = {name: CONTENDERS[name] for name in names}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            seconds, ratios = measure(
                make, contenders, torch.device("cpu"), rounds=options.rounds,
                block_seconds=options.block, folder=Path(folder), settle=SMALL if large else None,
            )  # fmt: skip
        figures = {kind: figure_of(kind, found) for kind, found in ratios.items()}
        report(name, DEMAND, figures, ratios)
        cells = [figures.get(kind) for kind in KINDS]
        shown = " | ".join("–" if cell is None else f"{cell:.2f}" for cell in cells)
        lines.append(f"| {name} | {seconds * 1e3:.2f} ms | {shown} |")
    text = "\n".join(lines)
    print("\n" + text)
    if options.write:
        put(options.write, MARKS, text)


if __name__ == "__main__":
    main()
