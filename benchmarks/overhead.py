"""What watching costs: step time watched / bare, beside other ways of watching.

    python benchmarks/overhead.py                 # CPU, all models, a table
    python benchmarks/overhead.py --slow --cockpit COCKPIT_PYTHON --write docs/performance.md

All contenders train in turn in one process, block by block, so that a busy machine slows all of
them alike; a ratio compares the step times of neighbouring blocks, and a process gives the median
ratio of its rounds. Of a contender whose steps are alike, a block gives the median step, of the
automatic schedule the mean. Where a training's memory happens to lie makes its steps some per cent
faster or slower as long as the process lives, so that several processes are asked, and the table
shows their median; a second bare loop says what is left of luck. ``--write`` also draws the plot
beside the document's images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead_models import AUTOMATIC_DEMAND, MODELS, Built
from benchmarks.overhead_peers import CONTENDERS, Contender, Step, Training, installed
from benchmarks.overhead_plot import write_svg
from benchmarks.steady import keep_memory
from inspector.capture import kernel

MARKS = ("<!-- overhead:begin -->", "<!-- overhead:end -->")
PLOT = "images/overhead.svg"
SETTLED = 420  # steps after which the facts for the diagnosis are collected
SLOW_ROUNDS = 3
Result = tuple[float, dict[str, list[float]]]


def measure(
    make: Callable[[], Training],
    contenders: dict[str, Contender],
    device: torch.device,
    *,
    rounds: int,
    block_seconds: float,
    folder: Path,
    settle: int | None = None,
) -> Result:
    """Seconds of a bare step, and each contender's ratios to bare, one per round.

    Args:
        settle: samples of the batches in the steps that come before; all of them if None.
    """
    trainings: dict[str, Training] = {}
    steps: dict[str, Step] = {}
    for position, (name, contender) in enumerate(contenders.items()):
        place = folder / str(position)
        place.mkdir()
        try:
            trainings[name] = make()
            steps[name] = contender.build(trainings[name], place)
            block(steps[name], device, 3 if contender.slow else 10)
        except RuntimeError as error:  # full backward hooks refuse some models
            print(f"{name} raises: {error!s:.80}", flush=True)
            steps.pop(name, None)
    length = max(3, int(block_seconds / block(steps["bare"], device, 10)[0]))
    for name in steps:  # the schedule settles, and the program is examined, in the first steps
        if name.startswith("inspector"):
            with smaller(trainings[name], settle):
                block(steps[name], device, max(SETTLED, min(2000, length * 20)))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    bases: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(rounds):
        order = list(steps)
        taken = {
            name: block(steps[name], device, 3 if contenders[name].slow else length)
            for name in order[number % len(order) :] + order[: number % len(order)]
            if not contenders[name].slow or number < SLOW_ROUNDS
        }
        for name, found in taken.items():
            times[name].append(found)
            bases[name].append(taken["bare"])
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    for name, found_all in times.items():
        which = 1 if "automatic" in name else 0
        pairs = zip(found_all, bases[name], strict=True)
        ratios[name] = [mine[which] / base[which] for mine, base in pairs]
        if "automatic" in name:  # the few full steps count only in the sum of all rounds
            total, bare = (sum(mean for _, mean in side[name]) for side in (times, bases))
            ratios[name] = [*ratios[name], total / bare]
    return statistics.median(base for base, _ in times["bare"]), ratios


@contextlib.contextmanager
def smaller(training: Training, samples: int | None) -> Iterator[None]:
    """Trains with the first samples of the batch only."""
    whole = training.inputs, training.targets
    training.inputs, training.targets = whole[0][:samples], whole[1][:samples]
    yield
    training.inputs, training.targets = whole


def settings(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, with what all of these benchmarks have in common."""
    parser.add_argument("--only", default="", help="models whose name matches")
    parser.add_argument("--write", type=Path, help="replace the table in this document")
    keep_memory()
    return parser.parse_args()


def training_of(build: Callable[[], Built], device: torch.device) -> Training:
    torch.manual_seed(0)
    model, inputs, targets = build()
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return Training(model, optimizer, inputs.to(device), targets.to(device))


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


def figure_of(name: str, ratios: list[float]) -> float | None:
    """The ratio that stands for all rounds of a process; None where the contender raises."""
    if not ratios:
        return None
    return ratios[-1] if "automatic" in name else statistics.median(ratios)


def middle(ratios: list[float]) -> float | None:
    """The ratio that stands for all processes; None where the contender raises."""
    return statistics.median(ratios) if ratios else None


def cockpit(python: str, model: str, threads: int, seconds: float) -> dict[str, list[float]]:
    """Cockpit's two usual configurations, measured by its own interpreter."""
    script = Path(__file__).with_name("overhead_cockpit.py")
    command = [python, str(script), model, str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {f"Cockpit, {level}": [] if ratio is None else [ratio] for level, ratio in found.items()}


def table(results: dict[str, Result], about: str) -> str:
    names = list(next(iter(results.values()))[1])
    lines = [about, "", "| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    bare_row = [f"{seconds * 1e3:.2f} ms" for seconds, _ in results.values()]
    lines.append("| bare step | " + " | ".join(bare_row) + " |")
    for name in names:
        if name != "bare":
            figures = [middle(ratios[name]) for _, ratios in results.values()]
            cells = ["raises" if figure is None else f"{figure:.2f}" for figure in figures]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(
    model: str,
    demand: float,
    figures: dict[str, float | None],
    ratios: dict[str, list[float]],
) -> bool:
    """Prints one model's figures and how far apart ratios lie; whether ours are as demanded."""
    met = True
    for name, figure in figures.items():
        if figure is None:
            continue
        found = ratios[name]
        limit = AUTOMATIC_DEMAND if "automatic" in name else demand
        missed = name.startswith("inspector") and figure > limit
        met &= not missed
        spread = ""
        if len(found) > 2:
            quarters = statistics.quantiles(found, n=4)
            spread = f" ({quarters[0]:.3f} – {quarters[2]:.3f})"
        mark = f"  demand {limit}" if missed else ""
        print(f"{model:20} {name:30} {figure:.3f}{spread}{mark}", flush=True)
    return met


def in_processes(options: argparse.Namespace, model: str, threads: int, names: list[str]) -> Result:
    """Seconds of a bare step, and each contender's ratios to bare, one per process."""
    command = [
        sys.executable, __file__, "--device", options.device, "--threads", str(threads),
        "--rounds", str(options.rounds), "--block", str(options.block), "--child", model, *names,
    ]  # fmt: skip
    found = []
    for _ in range(options.processes):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    ratios = {
        name: [figures[name] for _, figures in found if figures[name] is not None] for name in names
    }
    return statistics.median(seconds for seconds, _ in found), ratios


def child(options: argparse.Namespace) -> None:
    """Prints what one process finds of one model."""
    model, *names = options.child
    device = torch.device(options.device)
    torch.set_num_threads(options.threads[0])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seconds, ratios = measure(
            partial(training_of, MODELS[model][0], device),
            {name: CONTENDERS[name] for name in names}, device,
            rounds=options.rounds, block_seconds=options.block, folder=Path(folder),
        )  # fmt: skip
    print(json.dumps((seconds, {name: figure_of(name, found) for name, found in ratios.items()})))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="of PyTorch; after the first ours only"
    )
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7, help="in each process")
    parser.add_argument("--block", type=float, default=0.15, help="seconds of bare steps a block")
    parser.add_argument("--with", dest="names", default="", help="contenders whose name matches")
    parser.add_argument("--slow", action="store_true", help="also the slowest contenders")
    parser.add_argument("--cockpit", help="an interpreter that has cockpit-for-pytorch")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = settings(parser)
    if options.child:
        child(options)
        return 0
    device = torch.device(options.device)
    contenders = [
        name for name in installed(options.slow) if name == "bare" or re.search(options.names, name)
    ]
    tables, drawn, met = [], {}, True
    for turn, threads in enumerate(options.threads):
        names = [n for n in contenders if not turn or "bare" in n or n.startswith("inspector")]
        results: dict[str, Result] = {}
        for model, (_, demand) in MODELS.items():
            if not re.search(options.only, model):
                continue
            seconds, ratios = in_processes(options, model, threads, names)
            if options.cockpit and device.type == "cpu" and not turn:
                ratios |= cockpit(options.cockpit, model, threads, 3.0)
            results[model] = seconds, ratios
            met &= report(model, demand, {n: middle(r) for n, r in ratios.items()}, ratios)
        tables.append(table(results, about(device, threads)))
        drawn = drawn or shown(results)
    text = "\n\n".join(tables)
    print("\n" + text)
    if options.write:
        put(options.write, MARKS, f"{text}\n\n![What each adds to the step time]({PLOT})")
        write_svg(drawn, options.write.parent / PLOT)
    return 0 if met else 1


def put(path: Path, marks: tuple[str, str], text: str) -> None:
    """Replaces what a document has between two marks."""
    document = path.read_text("utf-8")
    before, after = document.split(marks[0])[0], document.split(marks[1])[1]
    path.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", "utf-8")


def about(device: torch.device, threads: int) -> str:
    cpu = f"CPU, {threads} thread{'s' * (threads > 1)}"
    where = torch.cuda.get_device_name() if device.type == "cuda" else cpu
    return (
        f"{where}, PyTorch {torch.__version__}, Python {platform.python_version()}, Adam, "
        f"ratios to bare steps; {kernel.description()}."
    )


def shown(results: dict[str, Result]) -> dict[str, dict[str, float | None]]:
    """``shown[contender][model]``, for the plot."""
    names = [name for name in next(iter(results.values()))[1] if "bare" not in name]
    return {
        name: {model: middle(ratios[name]) for model, (_, ratios) in results.items()}
        for name in names
    }


if __name__ == "__main__":
    sys.exit(main())
