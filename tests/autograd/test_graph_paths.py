"""Where a NaN or a shrinking gradient travels, and what differs between two steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from inspector.autograd import GraphTags, capture_graph
from inspector.views.graph import GraphTree
from inspector.views.graph_compare import CHANGED, ONLY_OTHER, ONLY_THIS, compare
from inspector.views.graph_details import details, shown_as
from inspector.views.graph_dot import BAD, CHANGES, Marked, to_dot
from inspector.views.graph_measures import duration, scale
from inspector.views.graph_paths import drawn, nonfinite_path, smallest_path, vanishes


def captured(model: nn.Module, *inputs: Any, step: int = 1) -> dict[str, Any]:
    model.zero_grad()
    with GraphTags(model, calls=True) as tags:
        loss = model(*inputs).square().mean()
    pending = capture_graph(loss, model, step=step, tags=tags)
    loss.backward()
    return pending.finish()


class Rooted(nn.Module):
    """sqrt at 0 has an infinite slope; times 0 it is NaN, and only one branch leads there."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.other = nn.Linear(3, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return self.head(self.other(h) + (h - h).abs().sqrt() * 0)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 4)
        self.left = nn.Linear(4, 4)
        self.right = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, left: bool) -> torch.Tensor:
        h = self.stem(x)
        h = self.left(h) if left else self.right(h)
        h = h.relu() if left else h.sigmoid()
        return self.head(h)


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x: torch.Tensor, rounds: int) -> torch.Tensor:
        for _ in range(rounds):
            x = torch.tanh(x @ self.weight)
        return x


def test_a_nan_is_followed_from_its_birth_to_the_parameters() -> None:
    document = captured(Rooted(), torch.ones(2, 2))
    path = nonfinite_path(document)
    assert path is not None
    ops = [document["nodes"][place]["op"] for place in path.nodes]
    assert ops[0] == "SqrtBackward0"
    assert ops[1:3] == ["AbsBackward0", "SubBackward0"]
    reached = {document["nodes"][place]["parameter"] for place in path.nodes} - {None}
    gradients = Rooted()
    gradients(torch.ones(2, 2)).square().mean().backward()
    oracle = {n for n, p in gradients.named_parameters() if not p.grad.isfinite().all()}
    assert reached == oracle == {"first.weight", "first.bias"}
    assert "leaves SqrtBackward0 in the model, test_graph_paths.py:" in path.sentence
    assert "2 of 6 parameters" in path.sentence
    # Everything on the way was told so by something that is not finite, or by the origin.
    assert all(sender == path.origin or sender in path.nodes for sender, _ in path.links)


def test_a_loss_that_is_nan_already_sends_the_reader_to_the_forward_pass() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([-1.0]))

        def forward(self) -> torch.Tensor:
            return self.weight.log()

    path = nonfinite_path(captured(Log()))
    assert path is not None
    assert "The loss itself is NaN" in path.sentence


def test_a_gradient_that_enters_infinite_has_no_birth() -> None:
    model = nn.Linear(1, 1)
    with GraphTags(model) as tags:
        loss = model(torch.ones(1, 1)).sum()
    pending = capture_graph(loss, model, step=0, tags=tags)
    loss.backward(torch.tensor(math.inf))
    path = nonfinite_path(pending.finish())
    assert path is not None
    assert "enters at the loss is already not finite" in path.sentence


def test_the_smallest_gradient_is_reached_by_a_chain_whose_factors_multiply_up() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(4, 4), nn.Sigmoid())]
    model = nn.Sequential(*layers)
    document = captured(model, torch.randn(5, 4))
    path = smallest_path(document)
    assert path is not None
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters()}
    target = min(norms, key=norms.__getitem__)
    last = document["nodes"][path.nodes[-1]]
    assert last["parameter"] == target
    assert last["grad_norm"] == pytest.approx(norms[target])
    folded = GraphTree(document).fold(frozenset(GraphTree(document).folds))
    way = drawn(path, folded)
    start, end = (
        document["nodes"][place]["grad_norm"] for place in (path.nodes[0], path.nodes[-1])
    )
    assert math.prod(f for f in way.links.values() if f is not None) == pytest.approx(end / start)
    assert vanishes(document)
    assert f"{target} gets the smallest gradient" in path.sentence
    dot = to_dot(folded, marked=Marked(way))
    assert dot.count('class="path"') == len(path.nodes) - 1
    assert dot.count("grad × ") == len(way.links)


def test_factors_multiply_up_through_folds_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()) for _ in range(4)))
    document = captured(model, torch.randn(5, 4))
    path = smallest_path(document)
    assert path is not None
    way = drawn(path, GraphTree(document).fold({"m:"}))
    assert len(way.boxes) == 6  # the loss's two operations and four closed folds
    first = path.norms[path.nodes[0]]
    entered = next(
        path.norms[place] for place in path.nodes if document["nodes"][place]["module"] == "0.1"
    )
    assert math.prod(f for f in way.links.values() if f) == pytest.approx(entered / first)


def test_a_dead_relu_is_named_as_the_end_of_the_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    nn.init.constant_(model[0].bias, -100.0)
    path = smallest_path(captured(model, torch.ones(2, 2)))
    assert path is not None
    assert "exactly 0 from ReluBackward0 in 1" in path.sentence


def test_the_two_branches_are_told_apart() -> None:
    model, x = Branching(), torch.ones(3, 2)
    left, right = captured(model, x, True, step=4), captured(model, x, False, step=9)
    found = compare(right, left)
    by_mark: dict[str, set[str]] = {}
    for node in found.document["nodes"]:
        by_mark.setdefault(node["mark"], set()).add(node["parameter"] or node["op"])
    assert {"left.weight", "left.bias"} <= by_mark[ONLY_OTHER]
    assert {"right.0.weight", "right.2.bias", "TanhBackward0"} <= by_mark[ONLY_THIS]
    assert by_mark[CHANGED] == {"SigmoidBackward0"}
    assert {"stem.weight", "head.bias", "MeanBackward0"} <= by_mark[""]
    assert found.counts == {ONLY_OTHER: 4, ONLY_THIS: 9, CHANGED: 1}
    assert found.sentence == "4 nodes only in step 4, 9 only in step 9, 1 changed."
    sentences = [difference.sentence for difference in found.differences]
    assert "4 nodes in left only in step 4" in sentences  # two of them are its parameters
    assert any("ReluBackward0 3×4 → SigmoidBackward0 3×4" in text for text in sentences)
    tree = GraphTree(found.document)
    dot = to_dot(tree.fold(), marked=Marked(steps=(9, 4)))
    assert dot.count(f'fillcolor="{CHANGES[CHANGED]}"') == 1
    assert dot.count("only in step 4") == 4
    changed = next(n["id"] for n in found.document["nodes"] if n["mark"] == CHANGED)
    facts = details(tree, f"o:{changed}")
    assert facts is not None
    assert ("in the other step", "ReluBackward0 3×4") in facts.rows


def test_every_node_of_both_graphs_is_in_the_merged_one_with_its_edges() -> None:
    model, x = Branching(), torch.ones(3, 2)
    left, right = captured(model, x, True), captured(model, x, False)
    found = compare(right, left)
    nodes = found.document["nodes"]
    assert [node["id"] for node in nodes] == list(range(len(nodes)))
    mine = [n["op"] for n in nodes if n["mark"] != ONLY_OTHER]
    assert sorted(mine) == sorted(n["op"] for n in right["nodes"])
    same = len(nodes) - found.counts[ONLY_THIS] - found.counts[ONLY_OTHER]
    assert len(left["nodes"]) == same + found.counts[ONLY_OTHER]
    assert all(a < b for a, b in found.document["edges"])
    for side in ("backward", "forward"):
        assert list(GraphTree(found.document, side).fold().boxes())


def test_more_rounds_of_a_loop_are_only_those() -> None:
    model, x = Looping(), torch.ones(2, 3)
    found = compare(captured(model, x, 5), captured(model, x, 3, step=0))
    assert found.counts == {ONLY_OTHER: 0, ONLY_THIS: 4, CHANGED: 0}  # two rounds of two


def test_another_batch_size_is_said_and_not_marked() -> None:
    model = Branching()
    found = compare(
        captured(model, torch.ones(6, 2), True), captured(model, torch.ones(3, 2), True)
    )
    assert found.differences == ()
    assert "2 times as large" in found.sentence


def test_a_changed_shape_is_marked() -> None:
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, width: int) -> torch.Tensor:
            return self.fc(x)[:, :width].exp()

    model, x = Widths(), torch.ones(2, 4)
    found = compare(captured(model, x, 3), captured(model, x, 2, step=0))
    changed = {n["op"]: n["was"] for n in found.document["nodes"] if n["mark"] == CHANGED}
    assert changed["ExpBackward0"] == "ExpBackward0 2×2"


def test_both_sides_share_folds_selection_and_colour_scale() -> None:
    document = captured(Branching(), torch.ones(3, 2), False)
    backward, forward = GraphTree(document), GraphTree(document, "forward")
    opened = backward.opening()
    picture = forward.fold(opened)
    assert [b.title for b in picture.boxes() if b.kind == "module"] == [
        "stem", "right.0", "right.1", "right.2", "head"
    ]  # fmt: skip
    shapes = {box.title: box.shapes for box in picture.boxes()}
    assert shapes["right.0"] == "3×4 → 3×5"
    assert "sigmoid" in shapes
    weight = next(n["id"] for n in document["nodes"] if n["parameter"] == "right.0.weight")
    assert shown_as(backward, backward.fold(opened), f"o:{weight}") == f"o:{weight}"
    assert shown_as(forward, picture, f"o:{weight}") == "m:right.0"
    assert shown_as(backward, backward.fold({"m:"}), "m:right.0") == "m:right"
    assert shown_as(backward, backward.fold(opened), "o:99999") is None
    assert "dir=back" in to_dot(backward.fold(opened))
    assert "dir=back" not in to_dot(picture)


def test_memory_and_time_add_up_in_a_fold_and_the_scale_has_their_ends() -> None:
    document = captured(Branching(), torch.ones(3, 2), True)
    tree = GraphTree(document)
    for measure, name in (("memory", "saved_bytes"), ("time", "backward_us")):
        closed = tree.fold(frozenset(), measure=measure)
        model = next(box for box in closed.boxes() if box.key == "m:")
        inside = [n[name] for n in document["nodes"] if n["module"] is not None]
        assert model.value == pytest.approx(sum(inside))
        assert closed.high >= model.value
    forward = GraphTree(document, "forward").fold(frozenset(), measure="time")
    model = next(box for box in forward.boxes() if box.key == "m:")
    assert model.value == document["calls"][0]["us"]
    dot = to_dot(tree.fold(measure="memory"))
    assert "saved" in dot
    assert BAD not in dot


def test_durations_and_scales_are_said_in_units() -> None:
    said = [duration(value) for value in (0.5, 12.34, 1234.0, 2.5e6)]
    assert said == ["0.5 µs", "12.3 µs", "1.23 ms", "2.5 s"]
    assert scale([None, 0.0]) == (None, None)
    assert scale([0.0, 2.0, 1e-30]) == (2e-12, 2.0)
