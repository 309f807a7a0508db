"""What it costs to be ready for a NaN: time machine armed / bare, beside detect_anomaly.

    python benchmarks/nan.py                                   # CPU, five models, a table
    python benchmarks/nan.py --device cuda --write docs/nan.md

The contenders train in turn in one process, block by block, as in ``benchmarks/overhead.py``, whose
models these are. ``armed`` is the time machine alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead_models import MODELS
from benchmarks.steady import keep_memory
from inspector.timemachine.machine import TimeMachine

Step = Callable[[], None]
MARKS = ("<!-- nan:begin -->", "<!-- nan:end -->")


class Nobody:
    """A listener that counts steps and hears of nothing."""

    step = 0

    def nonfinite_policy(self) -> str:
        return "pause"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nothing should go wrong here, but {name} was called")


class Training:
    def __init__(self, build: Callable[[], Any], device: str) -> None:
        torch.manual_seed(0)
        model, inputs, targets = build()
        self.model = model.to(device)
        self.inputs, self.targets = inputs.to(device), targets.to(device)
        self.loss_fn = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)

    def step(self, record: Callable[[Any], None]) -> None:
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model(self.inputs), self.targets)
        record(loss)
        loss.backward()
        self.optimizer.step()


def bare(training: Training) -> Step:
    return lambda: training.step(lambda _loss: None)


def armed(training: Training) -> Step:
    listener = Nobody()
    machine = TimeMachine(training.model, [training.optimizer], listener, loss_fn=training.loss_fn)  # type: ignore[arg-type]

    def step() -> None:
        training.step(machine.on_loss)
        listener.step += 1

    return step


def anomaly(check_nan: bool) -> Callable[[Training], Step]:
    def build(training: Training) -> Step:
        def step() -> None:
            with torch.autograd.set_detect_anomaly(True, check_nan):
                training.step(lambda _loss: None)

        return step

    return build


CONTENDERS: dict[str, Callable[[Training], Step]] = {
    "bare": bare,
    "armed": armed,
    "detect_anomaly": anomaly(True),
    "detect_anomaly, no check": anomaly(False),
}


def block(step: Step, seconds: float, device: str) -> float:
    """Median time of a step over a short while."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        started = time.perf_counter()
        step()
        if device == "cuda" and len(times) % 20 == 19:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times) if device == "cpu" else statistics.mean(times)


def measure(build: Callable[[], Any], device: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Median over the rounds of each contender's ratio to its neighbouring bare block."""
    steps = {name: make(Training(build, device)) for name, make in CONTENDERS.items()}
    for step in steps.values():
        block(step, seconds, device)
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    base: list[float] = []
    for _ in range(rounds):
        for name, step in steps.items():
            if name == "bare":
                continue
            before = block(steps["bare"], seconds, device)
            mine = block(step, seconds, device)
            after = block(steps["bare"], seconds, device)
            base += [before, after]
            ratios[name].append(mine / ((before + after) / 2))
    return {
        "ms": 1000 * statistics.median(base),
        **{name: statistics.median(found) for name, found in ratios.items() if found},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    names = [name for name in CONTENDERS if name != "bare"]
    lines = [
        f"| Model | bare step | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for title, (build, _) in MODELS.items():
        if options.only not in title:
            continue
        found = measure(build, options.device, options.rounds, options.seconds)
        cells = " | ".join(f"{found[name]:.3f}" for name in names)
        lines.append(f"| {title} | {found['ms']:.2f} ms | {cells} |")
        print(lines[-1], flush=True)
    lines.append("")
    lines.append(f"torch {torch.__version__}, {options.device}, 1 thread, Adam.")
    table = "\n".join(lines)
    print(table)
    if options.write:
        text = options.write.read_text("utf-8")
        head, _, rest = text.partition(MARKS[0])
        _, _, tail = rest.partition(MARKS[1])
        options.write.write_text(f"{head}{MARKS[0]}\n{table}\n{MARKS[1]}{tail}", "utf-8")


if __name__ == "__main__":
    main()
