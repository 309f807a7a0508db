"""Cockpit's cost, in an environment of its own: called by overhead.py with ``--cockpit PYTHON``.

Prints one line of JSON: the ratio to a bare step of each configuration, or null where it refuses.
Cockpit (cockpit-for-pytorch with backpack-for-pytorch) imports pkg_resources: setuptools < 80.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from overhead_models import MODELS

Step = Callable[[], None]


def bare(model: nn.Module, inputs: Any, targets: Any) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def watched(model: nn.Module, inputs: Any, targets: Any, level: str) -> Step:
    from backpack import extend
    from cockpit import Cockpit
    from cockpit.utils.configuration import configuration

    model = extend(model)
    loss_fn, each = extend(nn.CrossEntropyLoss()), extend(nn.CrossEntropyLoss(reduction="none"))
    cockpit = Cockpit(model.parameters(), quantities=configuration(level))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    count = [0]

    def step() -> None:
        optimizer.zero_grad()
        output = model(inputs)
        loss = loss_fn(output, targets)
        about = {
            "batch_size": len(targets),
            "individual_losses": each(output, targets),
            "loss": loss,
            "optimizer": optimizer,
        }
        with cockpit(count[0], info=about):
            loss.backward(create_graph=cockpit.create_graph(count[0]))
        optimizer.step()
        count[0] += 1

    return step


def ratio(title: str, level: str, seconds: float) -> float | None:
    """Median step time to that of a bare step in the same round; None where it raises."""
    steps = []
    try:
        for build in (bare, lambda *made: watched(*made, level)):
            torch.manual_seed(0)
            steps.append(build(*MODELS[title][0]()))
            steps[-1]()
    except Exception as error:
        print(f"{title} {level}: {error!s:.100}", file=sys.stderr)
        return None
    found = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(found) < 3:
        taken = []
        for step in steps:
            started = time.perf_counter()
            step()
            taken.append(time.perf_counter() - started)
        found.append(taken[1] / taken[0])
    return statistics.median(found)


def main() -> None:
    title, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(threads)
    print(json.dumps({level: ratio(title, level, seconds) for level in ("economy", "full")}))


if __name__ == "__main__":
    main()
