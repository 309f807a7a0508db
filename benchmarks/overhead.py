"""What watching costs: step time watched / bare, beside other ways of watching.

    python benchmarks/overhead.py                 # CPU, all models, a table
    python benchmarks/overhead.py --device cuda --write docs/performance.md

All contenders train in turn in one process, block by block, so that a busy machine slows all of
them alike; a ratio compares the median step times of neighbouring blocks, and the table shows
the median ratio of all rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import inspector
from inspector.capture import kernel

Step = Callable[[], None]

MARKS = ("<!-- overhead:begin -->", "<!-- overhead:end -->")


# ---------------------------------------------------------------- the models


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int, length: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position))).flatten(0, 1)


def tiny_mlp() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, torch.randn(64, 64), torch.randint(0, 10, (64,))


def cnn() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    return model, torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))


def resnet18() -> tuple[nn.Module, Tensor, Tensor]:
    from torchvision.models import resnet18 as build

    batch = 128 if torch.cuda.is_available() else 16
    return build(num_classes=10), torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))


def gpt() -> tuple[nn.Module, Tensor, Tensor]:
    width, length, batch = (768, 512, 8) if torch.cuda.is_available() else (128, 64, 8)
    tokens = torch.randint(0, 256, (batch, length + 1))
    model = GPT(256, width, length, 4)
    return model, tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()


def deep_mlp() -> tuple[nn.Module, Tensor, Tensor]:
    layers = [part for _ in range(200) for part in (nn.Linear(64, 64), nn.Tanh())]
    return (
        nn.Sequential(*layers, nn.Linear(64, 10)),
        torch.randn(64, 64),
        torch.randint(0, 10, (64,)),
    )


MODELS = {
    "MLP 64-128-128-10": (tiny_mlp, 1.15),
    "CNN 28×28": (cnn, 1.05),
    "ResNet-18 32×32": (resnet18, 1.05),
    "GPT 4 × 128": (gpt, 1.05),
    "MLP 200 deep": (deep_mlp, 1.15),
}
AUTOMATIC_DEMAND = 1.03


# ---------------------------------------------------------------- the contenders


@dataclass
class Training:
    """One model in one contender's hands; ``note`` hears of the loss before backward."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    targets: Tensor

    def step(self, before: Callable[[Tensor], Any], after: Callable[[], Any]) -> None:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.inputs), self.targets)
        before(loss)
        loss.backward()
        after()
        self.optimizer.step()


def nothing(*_: object) -> None:
    return None


def bare(training: Training, _: Path) -> Step:
    return lambda: training.step(nothing, nothing)


def watched(every: int) -> Callable[[Training, Path], Step]:
    def build(training: Training, folder: Path) -> Step:
        watch = inspector.watch(
            training.model, training.optimizer, run_dir=folder, name="run", every=every
        )
        return lambda: training.step(lambda loss: watch.record(loss=loss), nothing)

    return build


def parameter_norms(training: Training, _: Path) -> Step:
    def norms() -> list[float]:
        return [p.grad.norm().item() for p in training.model.parameters() if p.grad is not None]

    return lambda: training.step(lambda loss: loss.item(), norms)


def naive_hooks(training: Training, _: Path) -> Step:
    found: dict[str, list[float]] = {}

    def forward(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = [output.mean().item(), output.std().item()]

        return hook

    def backward(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, gradients: Any) -> None:
            found[name + ".gradient"] = [gradients[0].norm().item()]

        return hook

    for name, module in training.model.named_modules():
        if not list(module.children()):
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # full backward hooks refuse it
            module.register_forward_hook(forward(name))
            module.register_full_backward_hook(backward(name))

    def norms() -> list[float]:
        return [p.grad.norm().item() for p in training.model.parameters() if p.grad is not None]

    return lambda: training.step(lambda loss: loss.item(), norms)


def anomaly(training: Training, _: Path) -> Step:
    def step() -> None:
        with torch.autograd.detect_anomaly():
            training.step(nothing, nothing)

    return step


def tensorboard(histograms: bool) -> Callable[[Training, Path], Step]:
    def build(training: Training, folder: Path) -> Step:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(folder)  # type: ignore[no-untyped-call]
        count = [0]

        def log() -> None:
            count[0] += 1
            for name, p in training.model.named_parameters():
                if p.grad is None:
                    continue
                if histograms:
                    writer.add_histogram(name, p.grad, count[0])  # type: ignore[no-untyped-call]
                else:
                    writer.add_scalar(name, p.grad.norm(), count[0])  # type: ignore[no-untyped-call]

        return lambda: training.step(nothing, log)

    return build


def wandb_watch(training: Training, folder: Path) -> Step:
    import wandb

    run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    run.watch(training.model, log="gradients", log_freq=1)
    return lambda: training.step(lambda loss: run.log({"loss": loss.item()}), nothing)


def contenders(slow: bool) -> dict[str, Callable[[Training, Path], Step]]:
    found: dict[str, Callable[[Training, Path], Step]] = {
        "bare": bare,
        "inspector, every step": watched(1),
        "inspector, automatic": watched(0),
        "gradient norms with .item()": parameter_norms,
        "naive hooks with .item()": naive_hooks,
        "detect_anomaly": anomaly,
    }
    if importlib.util.find_spec("tensorboard"):
        found["TensorBoard scalars"] = tensorboard(False)
        if slow:
            found["TensorBoard histograms"] = tensorboard(True)
    if slow and importlib.util.find_spec("wandb"):
        found["wandb.watch every step"] = wandb_watch
    return found


# ---------------------------------------------------------------- measuring


def measure(
    build: Callable[[], tuple[nn.Module, Tensor, Tensor]],
    names: dict[str, Callable[[Training, Path], Step]],
    device: torch.device,
    *,
    rounds: int,
    block_seconds: float,
    folder: Path,
) -> tuple[float, dict[str, list[float]]]:
    """Seconds of a bare step, and each contender's ratios to bare, one per round."""
    steps: dict[str, Step] = {}
    for position, (name, contender) in enumerate(names.items()):
        torch.manual_seed(0)
        model, inputs, targets = build()
        model.to(device)
        training = Training(
            model,
            torch.optim.Adam(model.parameters(), lr=1e-3),
            inputs.to(device),
            targets.to(device),
        )
        place = folder / str(position)
        place.mkdir()
        steps[name] = contender(training, place)
    for name in list(steps):
        try:
            block(steps[name], device, 10)
        except RuntimeError as error:  # full backward hooks refuse some models
            print(f"{name} raises: {error!s:.80}", flush=True)
            del steps[name]
    length = max(3, int(block_seconds / block(steps["bare"], device, 10)[0]))
    for name in steps:  # the automatic schedule settles in its first seconds
        if "automatic" in name:
            block(steps[name], device, min(2000, length * 20))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(rounds):
        order = list(steps)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            times[name].append(block(steps[name], device, length))
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for name, found in times.items():
        which = 1 if "automatic" in name else 0  # its steps are not alike: the mean counts
        pairs = zip(found, times["bare"], strict=True)
        ratios[name] = [taken[which] / base[which] for taken, base in pairs]
    return statistics.median(base for base, _ in times["bare"]), ratios


def block(step: Step, device: torch.device, length: int) -> tuple[float, float]:
    """Median and mean seconds of a step in one block."""
    taken = []
    for _ in range(length):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), statistics.fmean(taken)


def table(results: dict[str, tuple[float, dict[str, list[float]]]], about: str) -> str:
    names = list(next(iter(results.values()))[1])
    lines = [about, "", "| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    bare_row = [f"{seconds * 1e3:.2f} ms" for seconds, _ in results.values()]
    lines.append("| bare step | " + " | ".join(bare_row) + " |")
    for name in names:
        if name != "bare":
            cells = [
                f"{statistics.median(ratios[name]):.2f}" if ratios[name] else "raises"
                for _, ratios in results.values()
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--block", type=float, default=0.15, help="seconds of bare steps a block")
    parser.add_argument("--only", default="", help="models whose name matches")
    parser.add_argument("--with", dest="names", default="", help="contenders whose name matches")
    parser.add_argument("--slow", action="store_true", help="also the slowest contenders")
    parser.add_argument("--write", type=Path, help="replace the table in this document")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    names = {
        name: build
        for name, build in contenders(options.slow).items()
        if name == "bare" or re.search(options.names, name)
    }
    results = {}
    met = True
    for model, (build, demand) in MODELS.items():
        if not re.search(options.only, model):
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            results[model] = measure(
                build, names, device,
                rounds=options.rounds, block_seconds=options.block, folder=Path(folder),
            )  # fmt: skip
        for name, ratios in results[model][1].items():
            if not ratios:
                continue
            limit = demand if "every" in name else AUTOMATIC_DEMAND
            missed = name.startswith("inspector") and statistics.median(ratios) > limit
            met &= not missed
            quarters = statistics.quantiles(ratios, n=4)
            spread = f"{quarters[0]:.3f} – {quarters[2]:.3f}"
            mark = f"  demand {limit}" if missed else ""
            print(
                f"{model:20} {name:30} {statistics.median(ratios):.3f} ({spread}){mark}", flush=True
            )
    where = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} thread"
    )
    about = (
        f"{where}, PyTorch {torch.__version__}, Python {platform.python_version()}, Adam, every "
        f"step, ratio to a bare step; {kernel.description()}."
    )
    text = table(results, about)
    print("\n" + text)
    if options.write:
        document = options.write.read_text("utf-8")
        before, after = document.split(MARKS[0])[0], document.split(MARKS[1])[1]
        options.write.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
