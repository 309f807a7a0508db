"""What watching costs in a run's first steps, in which the program is examined for the diagnosis.

    python benchmarks/overhead_first.py --write docs/performance.md

A watched and a bare training take turns of a few steps, with everything as it is by default. Each
pair is made anew, in one process.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead import about, put, settings, training_of
from benchmarks.overhead_models import MODELS, Built
from benchmarks.overhead_peers import Step, bare, watched

MARKS = ("<!-- first:begin -->", "<!-- first:end -->")
STEPS = 400
TURN = 20


def first_steps(build: Callable[[], Built]) -> tuple[float, float]:
    """Seconds of the first steps of a bare training, and of a watched one."""
    taken = [0.0, 0.0]
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        steps = [bare(training_of(build, device), Path(folder))]
        steps.append(watched(0)(training_of(build, device), Path(folder)))
        for turn in range(STEPS // TURN):
            for which in (0, 1) if turn % 2 else (1, 0):
                taken[which] += seconds_of(steps[which])
    return taken[0], taken[1]


def seconds_of(step: Step) -> float:
    began = time.perf_counter()
    for _ in range(TURN):
        step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pairs", type=int, default=5)
    options = settings(parser)
    torch.set_num_threads(1)
    lines = [about(torch.device("cpu"), 1), ""]
    lines.append(f"| | first {STEPS} steps, bare | automatic | lowest – highest |")
    lines.append("|---|---|---|---|")
    for name, (build, _) in MODELS.items():
        if not re.search(options.only, name):
            continue
        first_steps(build)  # libraries are loaded, and memory is had
        found = [first_steps(build) for _ in range(options.pairs)]
        ratios = [mine / plain for plain, mine in found]
        seconds = statistics.median(plain for plain, _ in found)
        spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
        lines.append(f"| {name} | {seconds:.2f} s | {statistics.median(ratios):.2f} | {spread} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    print("\n" + text)
    if options.write:
        put(options.write, MARKS, text)


if __name__ == "__main__":
    main()
