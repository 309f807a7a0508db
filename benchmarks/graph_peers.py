"""One peer draws the graph of one model; started by ``graph.py`` in a process of its own.

    python benchmarks/graph_peers.py torchlens-backward resnet152

Each tool draws a tiny model first, so that imports and first calls are not counted. Then it prints
``{"ready": 0}`` and a line of JSON for each part that is done: ``{"build": seconds}``,
``{"draw": seconds}``. Drawing is Graphviz to SVG, as the tools do it: ``dot`` from the PATH.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from graph_models import Scored, model_and_input
from torch import nn


def torchviz(model: nn.Module, x: torch.Tensor, folder: Path) -> Iterator[None]:
    """The autograd graph, as ``make_dot`` draws it."""
    from torchviz import make_dot

    loss = Scored(model)(x)
    yield
    text = make_dot(loss, params=dict(model.named_parameters())).source
    yield
    _dot(text, folder)
    yield


def torchview(model: nn.Module, x: torch.Tensor, folder: Path) -> Iterator[None]:
    """The modules, three levels deep: its default."""
    from torchview import draw_graph

    yield
    text = draw_graph(model, input_data=x, device="cpu", mode="train").visual_graph.source
    yield
    _dot(text, folder)
    yield


def torchlens_forward(model: nn.Module, x: torch.Tensor, folder: Path) -> Iterator[None]:
    """The operations of the forward pass."""
    import torchlens

    scored = Scored(model)
    yield
    trace = torchlens.trace(scored, x)
    yield
    trace.draw(vis_save_only=True, vis_fileformat="svg", vis_outpath=str(folder / "forward"))
    yield


def torchlens_backward(model: nn.Module, x: torch.Tensor, folder: Path) -> Iterator[None]:
    """The autograd graph."""
    import torchlens

    scored = Scored(model)
    yield
    trace = torchlens.trace(scored, x)
    trace.log_backward(scored.loss)
    yield
    trace.draw_backward(
        vis_save_only=True, vis_fileformat="svg", vis_outpath=str(folder / "backward")
    )
    yield


PEERS: dict[str, Callable[[nn.Module, torch.Tensor, Path], Iterator[None]]] = {
    "torchviz": torchviz,
    "torchview": torchview,
    "torchlens-forward": torchlens_forward,
    "torchlens-backward": torchlens_backward,
}


def _dot(text: str, folder: Path) -> None:
    target = folder / "picture.svg"
    command = ["dot", "-Tsvg", "-o", str(target)]
    subprocess.run(command, input=text.encode(), check=True, capture_output=True)


def _timed(peer: str, model: str, folder: Path) -> Iterator[dict[str, float]]:
    stages = PEERS[peer](*model_and_input(model), folder)
    next(stages)
    for part in ("build", "draw"):
        start = time.perf_counter()
        next(stages)
        yield {part: time.perf_counter() - start}


def main() -> None:
    peer, model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        for _ in _timed(peer, "mlp", Path(name)):
            pass
        print(json.dumps({"ready": 0}), flush=True)
        for done in _timed(peer, model, Path(name)):
            print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
