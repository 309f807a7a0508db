"""Time, order, module calls, living memory and source text of a captured step."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import torch
from torch import nn

from inspector.autograd import GraphTags, capture_graph
from inspector.autograd.times import Stopwatch
from inspector.views.graph import GraphTree


def captured(model: nn.Module, *inputs: Any, keep: list[Any] | None = None) -> dict[str, Any]:
    with GraphTags(model, calls=True) as tags:
        output = model(*inputs)
        loss = output.square().mean()
    if keep is not None:
        keep.append(output)
    del output
    pending = capture_graph(loss, model, step=3, tags=tags)
    loss.backward()
    document = pending.finish()
    json.dumps(document, allow_nan=False)
    return document


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.factor = 2
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return gradient * ctx.factor


class Sleepy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return Slow.apply(self.inner(x))


def test_the_slow_node_and_the_slow_module_have_the_time() -> None:
    document = captured(nn.Sequential(nn.Linear(2, 3), Sleepy(), nn.Linear(3, 1)), torch.ones(2, 2))
    spent = {node["op"]: node["backward_us"] for node in document["nodes"]}
    assert spent["SlowBackward"] >= 50_000
    assert spent["SlowBackward"] == max(spent.values())
    by_module = {call["module"]: call["us"] for call in document["calls"]}
    assert by_module[""] >= by_module["1"] >= 50_000
    assert by_module["1"] > by_module["1.inner"]
    assert document["clock"] == "host"


def test_the_order_is_the_one_in_which_the_engine_ran() -> None:
    model, ran = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), []
    with GraphTags(model) as tags:
        loss = model(torch.ones(4, 2)).square().mean()
    pending = capture_graph(loss, model, step=0, tags=tags)
    names = {}

    def watch(node: Any) -> None:
        if node is not None and node not in names:
            names[node] = node.name().rpartition("::")[2]
            node.register_prehook(lambda _: ran.append(names[node]))
            for above, _ in node.next_functions:
                watch(above)

    watch(loss.grad_fn)
    loss.backward()
    nodes = pending.finish()["nodes"]
    assert [n["op"] for n in sorted(nodes, key=lambda n: n["order"])] == ran


def test_module_calls_have_their_shapes_in_the_order_of_the_data() -> None:
    document = captured(
        nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1)), torch.ones(4, 2)
    )
    calls = [(c["module"], c["inputs"], c["outputs"], c["inside"]) for c in document["calls"]]
    assert calls == [
        ("", [[4, 2]], [[4, 1]], None), ("0", [[4, 2]], [[4, 5]], 0),
        ("1", [[4, 5]], [[4, 5]], 0), ("2", [[4, 5]], [[4, 1]], 0),
    ]  # fmt: skip
    assert [call["after"] for call in document["calls"]] == [[], [], [1], [2]]
    assert [call["type"] for call in document["calls"]][1:] == ["Linear", "ReLU", "Linear"]


def test_another_forward_pass_while_tagging_is_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with GraphTags(model, calls=True) as tags:
        with torch.no_grad():
            model(torch.ones(7, 2))
        loss = model(torch.ones(4, 2)).sum()
    document = capture_graph(loss, model, step=0, tags=tags, gradients=False).finish()
    assert [(c["module"], c["call"]) for c in document["calls"]] == [("", 0), ("0", 0), ("1", 0)]
    assert document["calls"][0]["inputs"] == [[4, 2]]


def test_frozen_modules_stand_where_they_ran_on_the_forward_side_only() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    document = captured(model, torch.ones(4, 2))
    forward = GraphTree(document, "forward").fold()
    boxes = {box.id: box for box in forward.boxes()}
    assert [box.title for box in boxes.values()] == ["0", "1", "2", "3", "pow", "mean"]
    assert "not in the autograd graph" in boxes["n0"].subtitle
    assert boxes["n0"].shapes == "4×2 → 4×3"
    assert [(a, b) for a, b, _ in forward.edges] == [(f"n{i}", f"n{i + 1}") for i in range(5)]
    assert forward.implied == frozenset()
    backward = GraphTree(document).fold()
    assert all(not box.title.startswith("0") for box in backward.boxes())


def test_what_only_the_graph_held_is_gone_after_backward_and_the_rest_is_not() -> None:
    kept: list[Any] = []
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    document = captured(model, torch.ones(3, 2), keep=kept)
    alive = {
        (node["op"], saved["name"]): saved["alive"]
        for node in document["nodes"]
        for saved in node["saved"]
    }
    assert alive["TanhBackward0", "result"] is False
    assert alive["PowBackward0", "self"] is True  # the output, held by the test
    weights = [s for n in document["nodes"] for s in n["saved"] if s["parameter"]]
    assert weights
    assert all(saved["alive"] for saved in weights)


def test_memory_that_two_nodes_share_is_counted_once() -> None:
    x = torch.ones(100, requires_grad=True)
    y = x.exp()
    shared = capture_graph((y * y.sin()).sum(), nn.Linear(1, 1), step=0).finish()
    saved = sum(s["bytes"] for n in shared["nodes"] for s in n["saved"])
    assert (saved, shared["kept_bytes"]) == (1600, 800)  # y three times and its sine


def test_each_line_comes_with_its_text_and_the_loss_with_its_value() -> None:
    document = captured(nn.Sequential(nn.Linear(2, 1)), torch.ones(3, 2))
    node = next(n for n in document["nodes"] if n["op"] == "PowBackward0")
    assert document["source"][f"{node['file']}:{node['line']}"] == "loss = output.square().mean()"
    assert isinstance(document["loss"], float)
    nan = capture_graph(torch.ones(1, requires_grad=True).log().sqrt() / 0, nn.Linear(1, 1), step=0)
    assert nan.finish()["loss"] == "nan"


def test_leaves_know_how_many_passes_are_in_their_gradient() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    model.bias.grad = None
    loss = model(torch.ones(1, 2)).sum()
    document = capture_graph(loss, model, step=0, gradients=False, accumulated=1).finish()
    leaves = {n["parameter"]: n["accumulated"] for n in document["nodes"] if n["parameter"]}
    assert leaves == {"weight": 1, "bias": 0}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_timed_by_its_own_events() -> None:
    watch = Stopwatch(torch.device("cuda"))
    x = torch.randn(4096, 4096, device="cuda")
    start = watch.mark()
    for _ in range(20):
        x = x @ x
    end = watch.mark()
    assert watch.clock == "cuda"
    assert watch.between(start, end) > 100
