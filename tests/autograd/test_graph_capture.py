"""The captured graph, compared with what autograd itself says."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18, vit_b_16

from inspector.autograd import GraphTags, capture_graph
from inspector.autograd.walk import walk


def captured(
    model: nn.Module, forward: Callable[[nn.Module], torch.Tensor], **options: Any
) -> dict[str, Any]:
    with GraphTags(model) as tags:
        loss = forward(model)
    assert tags.failure == ""
    pending = capture_graph(loss, model, step=7, tags=tags, **options)
    loss.backward()
    document = pending.finish()
    json.dumps(document, allow_nan=False)
    return document


class Unrolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, steps: int) -> torch.Tensor:
        h = c = torch.zeros(2, 3)
        for _ in range(steps):
            h, c = self.cell(torch.ones(2, 3), (h, c))
        return self.head(h)


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_an_mlp_is_described_completely() -> None:
    model, x = mlp(), torch.randn(3, 4)
    document = captured(model, lambda m: m(x).square().mean(), accumulated=2)

    nodes = document["nodes"]
    assert [node["op"] for node in nodes if node["accumulated"] is None] == [
        "TBackward0", "AddmmBackward0", "ReluBackward0", "TBackward0", "AddmmBackward0",
        "PowBackward0", "MeanBackward0",
    ]  # fmt: skip
    leaves = {node["parameter"]: node for node in nodes if node["parameter"]}
    for name, parameter in model.named_parameters():
        assert leaves[name]["shape"] == list(parameter.shape)
        assert leaves[name]["grad_norm"] == pytest.approx(parameter.grad.norm().item())
        assert leaves[name]["accumulated"] == 0
    relu = next(node for node in nodes if node["op"] == "ReluBackward0")
    assert (relu["module"], relu["shape"], relu["dtype"]) == ("1", [3, 8], "float32")
    assert relu["saved_bytes"] == 3 * 8 * 4
    last = nodes[-1]
    assert (last["module"], last["grad_norm"], last["shape"]) == (None, 1.0, [])
    assert document["step"] == 7
    assert document["notes"] == []


def test_norms_are_those_of_the_gradient_at_each_output() -> None:
    model, x = mlp(), torch.randn(3, 4)
    hidden = {}

    def forward(m: nn.Module) -> torch.Tensor:
        hidden["relu"] = m[1](m[0](x))
        hidden["relu"].retain_grad()
        return m[2](hidden["relu"]).sum()

    document = captured(model, forward)
    relu = next(node for node in document["nodes"] if node["op"] == "ReluBackward0")
    assert relu["grad_norm"] == pytest.approx(hidden["relu"].grad.norm().item())


def test_edges_run_from_producer_to_consumer_and_match_autograd() -> None:
    model = mlp()
    with GraphTags(model) as tags:
        loss = model(torch.randn(3, 4)).sum()
    document = capture_graph(loss, model, step=0, tags=tags, gradients=False).finish()
    expected = []

    def visit(node: Any) -> None:  # the recursive oracle
        for producer, _ in node.next_functions:
            if producer is not None:
                expected.append((producer.name().rpartition("::")[2], node.name()))
                visit(producer)

    visit(loss.grad_fn)
    ops = [node["op"] for node in document["nodes"]]
    assert sorted((ops[a], ops[b]) for a, b in document["edges"]) == sorted(expected)
    assert all(a < b for a, b in document["edges"])


def test_saved_bytes_agree_with_saved_tensor_hooks() -> None:
    torch.manual_seed(0)
    model, x = resnet18(num_classes=4), torch.randn(2, 3, 32, 32)
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            counted.append(tensor.numel() * tensor.element_size())
        return tensor

    counted: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x).sum()
    document = captured(model, lambda m: m(x).sum())
    assert document["saved_bytes"] == sum(counted)


@pytest.mark.parametrize(
    ("build", "at_least"),
    [(lambda: resnet18(num_classes=4), 130), (lambda: vit_b_16(image_size=32, num_classes=4), 600)],
)
def test_every_operation_of_torchvision_models_has_module_and_line(
    build: Callable[[], nn.Module], at_least: int
) -> None:
    model = build()
    document = captured(model, lambda m: m(torch.randn(2, 3, 32, 32)).sum())
    operations = [node for node in document["nodes"] if node["accumulated"] is None]
    assert len(document["nodes"]) >= at_least
    assert [node["op"] for node in operations if node["module"] is None] == ["SumBackward0"]
    assert set(document["modules"]) <= {path for path, _ in model.named_modules()}
    if hasattr(torch.autograd.graph, "node_creation_hook"):
        assert all("torchvision" in node["file"] for node in operations[:-1])
        assert operations[-1]["file"] == __file__


def test_source_lines_are_those_of_the_forward() -> None:
    model = Unrolled()
    document = captured(model, lambda m: m(2).sum())
    source, first = inspect.getsourcelines(Unrolled.forward)
    head = first + next(i for i, text in enumerate(source) if "self.head" in text)
    lines = {node["line"] for node in document["nodes"] if node["module"] == "head"}
    assert lines - {0} <= {head}


def test_a_thousand_time_steps_need_no_recursion() -> None:
    document = captured(Unrolled(), lambda m: m(1000).sum())
    assert len(document["nodes"]) > 15_000
    assert document["modules"]["cell"] == {"type": "LSTMCell", "calls": 1000}
    assert {n["call"] for n in document["nodes"] if n["module"] == "cell"} == set(range(1000))
    assert "5000" in document["torchviz"]


def test_the_walk_ends_at_its_limit() -> None:
    loss = Unrolled()(100).sum()
    found = walk(loss.grad_fn, limit=50)
    assert len(found.nodes) == 50
    assert not found.complete
    assert found.nodes[-1] is loss.grad_fn


def test_a_reused_module_is_told_apart_by_call() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    document = captured(model, lambda m: m["a"](m["a"](torch.randn(1, 2)).tanh()).sum())
    calls = [n["call"] for n in document["nodes"] if n["op"] == "AddmmBackward0"]
    assert calls == [0, 1]
    assert document["modules"]["a"]["calls"] == 2


def test_shared_parameters_carry_both_names() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    document = captured(model, lambda m: m["b"](m["a"](torch.randn(1, 2))).sum())
    assert "a.weight/b.weight" in [node["parameter"] for node in document["nodes"]]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_modules_are_not_run_again_by_looking(reentrant: bool) -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return self.inner(x).sin()

    model, x = Counted(), torch.randn(2, 3, requires_grad=True)
    with GraphTags(model) as tags:
        loss = checkpoint(model, x, use_reentrant=reentrant).sum()
    pending = capture_graph(loss, model, step=0, tags=tags)
    assert model.runs == 1
    loss.backward()
    assert model.runs == 2
    document = pending.finish()
    assert all(node["grad_norm"] is not None for node in document["nodes"])
    if not reentrant:
        sine = next(node for node in document["nodes"] if node["op"] == "SinBackward0")
        assert "saved-tensor hook" in sine["saved"][0]["note"]


def test_a_custom_function_is_one_node_with_its_saved_tensor() -> None:
    model = nn.Linear(3, 3)
    document = captured(model, lambda m: OwnReLU.apply(m(torch.ones(2, 3))).sum())
    node = next(n for n in document["nodes"] if n["op"] == "OwnReLUBackward")
    assert node["saved"][0]["shape"] == [2, 3]
    assert node["saved_bytes"] == 24


def test_a_tensor_changed_in_place_is_named() -> None:
    model = nn.Linear(3, 3)
    with GraphTags(model) as tags:
        hidden = model(torch.ones(2, 3)).exp()
        loss = hidden.sum()
    hidden.detach().add_(1)
    document = capture_graph(loss, model, step=0, tags=tags, gradients=False).finish()
    exp = next(n for n in document["nodes"] if n["op"] == "ExpBackward0")
    assert exp["saved"][0]["note"] == "changed in place"


def test_freed_tensors_are_said_to_be_freed() -> None:
    model = nn.Linear(3, 3)
    loss = model(torch.ones(2, 3)).exp().sum()
    loss.backward()
    document = capture_graph(loss, model, step=0, gradients=False).finish()
    exp = next(n for n in document["nodes"] if n["op"] == "ExpBackward0")
    assert exp["saved"][0]["note"] == "freed"


def test_a_compiled_model_is_one_node_and_said_so() -> None:
    model = torch.compile(mlp(), backend="aot_eager")
    document = captured(model, lambda m: m(torch.randn(3, 4)).sum())
    assert "CompiledFunctionBackward" in [node["op"] for node in document["nodes"]]
    assert any("torch.compile" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (torch.tensor(1.0), "no grad_fn"),
        (torch.tensor(1.0, requires_grad=True), "leaf tensor"),
        (1.0, "got a float"),
    ],
)
def test_a_loss_without_graph_is_explained(loss: Any, sentence: str) -> None:
    document = capture_graph(loss, mlp(), step=0).finish()
    assert document["nodes"] == []
    assert sentence in document["notes"][0]


def test_non_finite_gradients_are_marked_and_large_finite_ones_are_not() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    document = captured(model, lambda m: (m(torch.ones(1, 1)).sqrt() * 0).sum())
    marks = {node["op"]: node["nonfinite"] for node in document["nodes"]}
    assert marks["SqrtBackward0"] == ""
    assert marks["AccumulateGrad"] == "nan"

    model = nn.Linear(2, 2, bias=False)
    document = captured(model, lambda m: (m(torch.ones(1, 2)) * 1e30).sum())
    assert all(node["nonfinite"] == "" for node in document["nodes"])
    assert max(node["grad_norm"] for node in document["nodes"]) > 1e29


def test_untagged_captures_know_the_modules_of_parameters() -> None:
    model = mlp()
    loss = model(torch.randn(3, 4)).sum()
    document = capture_graph(loss, model, step=0, gradients=False).finish()
    addmm = [n["module"] for n in document["nodes"] if n["op"] == "AddmmBackward0"]
    assert addmm == ["0", "2"]
    assert "not tagged" in document["notes"][0]


def test_sequence_numbers_find_the_same_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    def owners() -> list[Any]:
        document = captured(resnet18(num_classes=3), lambda m: m(torch.ones(2, 3, 32, 32)).sum())
        return [(n["op"], n["module"], n["call"]) for n in document["nodes"]]

    with_hook = owners()
    monkeypatch.delattr(torch.autograd.graph, "node_creation_hook", raising=False)
    assert owners() == with_hook


def test_nothing_is_left_behind() -> None:
    model = mlp()
    tags = GraphTags(model).install()
    tags.install()
    hidden = model(torch.randn(3, 4))
    tags.remove()
    tags.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    loss = hidden.sum()
    activation = weakref.ref(hidden)
    pending = capture_graph(loss, model, step=0, tags=tags)
    loss.backward()
    del hidden, loss
    gc.collect()
    assert activation() is None
    document = pending.finish()
    assert pending.finish() is document
    del model
    gc.collect()


def test_gradients_are_bit_identical_with_and_without_capture() -> None:
    def gradients(watched: bool) -> list[torch.Tensor]:
        model, x = mlp(), torch.linspace(-1, 1, 12).reshape(3, 4)
        if watched:
            captured(model, lambda m: m(x).square().sum())
        else:
            model(x).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    assert all(map(torch.equal, gradients(True), gradients(False)))


def test_copies_made_while_tagging_are_inert() -> None:
    model = mlp()
    with GraphTags(model) as tags:
        copied = copy.deepcopy(model)
        loaded = pickle.loads(pickle.dumps(model))
        copied(torch.ones(1, 4))
        loaded(torch.ones(1, 4))
        assert tags._calls == {}


def test_an_error_in_forward_reaches_the_user_unchanged() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError(f"mine: {x.shape}")

    model = nn.Sequential(nn.Linear(2, 2), Broken())
    with GraphTags(model) as tags:
        with pytest.raises(ValueError, match="mine"):
            model(torch.ones(1, 2))
        assert tags._stack == []


def test_torchviz_text_or_a_reason() -> None:
    model = mlp()
    pending = capture_graph(model(torch.randn(1, 4)).sum(), model, step=0, gradients=False)
    assert pending.torchviz is not None
    assert "digraph" in pending.torchviz
    assert pending.finish()["torchviz"] == ""
    deep = Unrolled()
    limit = sys.getrecursionlimit()  # compiling raises it for good
    sys.setrecursionlimit(1000)
    try:
        pending = capture_graph(deep(300).sum(), deep, step=0, gradients=False)
    finally:
        sys.setrecursionlimit(limit)
    assert pending.torchviz is None
    assert "deep" in pending.finish()["torchviz"]


DOCS = Path(__file__).resolve().parents[2] / "docs" / "graph.md"


def test_the_documented_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["document"]["nodes"]) == 11


def test_every_field_of_the_document_is_documented() -> None:
    document = captured(mlp(), lambda m: m(torch.randn(3, 4)).sum())
    named = set(re.findall(r"`([a-z_]+)`", DOCS.read_text("utf-8")))
    assert set(document) <= named
    assert set(document["nodes"][0]) <= named
