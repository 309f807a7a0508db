"""What a recorded backward pass says, against autograd itself and slow, obvious computations."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.autograd.calls import ForwardCalls
from inspector.autograd.expression import record_expression
from inspector.autograd.module_probe import ModuleProbe
from inspector.autograd.owners import GraphTags
from inspector.autograd.portrait import portrait
from inspector.autograd.replay import BackwardRecording
from inspector.autograd.rules import rule_of
from inspector.errors import InspectorError


def ops(document: dict[str, Any]) -> list[str]:
    return [document["nodes"][visit["node"]]["op"] for visit in document["visits"]]


def sent(visit: dict[str, Any]) -> list[Any]:
    return [one["gradient"] and one["gradient"]["values"] for one in visit["outgoing"]]


def test_the_square_of_a_sum_is_six_and_six() -> None:
    document = record_expression("(x + y)**2", "x = 1, y = 2")
    assert ops(document) == ["PowBackward0", "AddBackward0", "AccumulateGrad", "AccumulateGrad"]
    power, add, *leaves = document["visits"]
    assert power["incoming"][0]["values"] == [1.0]
    assert sent(power) == [[6.0]]
    assert sent(add) == [[6.0], [6.0]]
    names = [document["nodes"][leaf["node"]]["name"] for leaf in leaves]
    assert sorted(names) == ["x", "y"]
    assert [(leaf["before"], leaf["after"]["values"]) for leaf in leaves] == [(None, [6.0])] * 2
    assert all(visit["check"]["agrees"] for visit in (power, add))
    json.dumps(document, allow_nan=False)


def test_an_input_used_twice_receives_the_sum() -> None:
    document = record_expression("a = x * y; a * x", "x = 2, y = 3")
    totals = {
        document["nodes"][visit["node"]]["name"]: visit["after"]["values"]
        for visit in document["visits"]
        if visit["after"]
    }
    assert totals == {"x": [12.0], "y": [4.0]}


def test_gradients_pile_up_in_the_running_sum() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    for passed in range(3):
        loss = (3 * x).sum()
        recording = BackwardRecording(loss, nn.Module(), step=passed)
        loss.backward()
        leaf = recording.finish()["visits"][-1]
        before = None if leaf["before"] is None else leaf["before"]["values"]
        assert before == (None if passed == 0 else [3.0 * passed] * 2)
        assert leaf["after"]["values"] == [3.0 * (passed + 1)] * 2


class Mixed(nn.Module):
    """Convolution, batch normalisation, in-place ReLU, pooling, dropout, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(27, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.pool(self.act(self.norm(self.conv(x)))).flatten(1)))


def recorded(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    forward = ForwardCalls(model)
    with GraphTags(model) as tags:
        loss = F.cross_entropy(model(inputs), targets)
    forward.leave()
    recording = BackwardRecording(
        loss, model, step=0, tags=tags, calls=forward.calls, check_seconds=30
    )
    loss.backward()
    return recording.finish()


def test_recording_changes_no_gradient_and_no_random_number() -> None:
    torch.manual_seed(0)
    watched, inputs = Mixed(), torch.randn(5, 1, 8, 8)
    plain, targets = copy.deepcopy(watched), torch.tensor([0, 1, 2, 3, 0])
    torch.manual_seed(1)
    F.cross_entropy(plain(inputs), targets).backward()
    after_plain = torch.rand(3)
    torch.manual_seed(1)
    recorded(watched, inputs, targets)
    assert torch.equal(after_plain, torch.rand(3))
    for (name, one), other in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]


def test_every_node_is_named_and_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    model = Mixed()
    document = recorded(model, torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0]))
    for visit in document["visits"]:
        node = document["nodes"][visit["node"]]
        if node["accumulated"] is None:
            assert visit["check"]["reason"] == "", node["op"]
            assert visit["check"]["agrees"], (node["op"], visit["check"])
        else:
            expected = model.get_parameter(node["parameter"]).grad
            assert visit["after"]["norm"] == pytest.approx(float(expected.norm()), rel=1e-5)
    order = [visit["node"] for visit in document["visits"]]
    assert len(order) == len(set(order)) == len(document["nodes"])
    modules = {node["module"] for node in document["nodes"]}
    assert {"conv", "norm", "act", "pool", "drop", "head"} <= modules


@pytest.mark.parametrize("text", ["relu(x)", "abs(x)", "maximum(x, y)"])
def test_a_kink_is_no_error(text: str) -> None:
    first = record_expression(f"3 * {text}", "x = 0, y = 0")["visits"][1]
    assert first["check"]["inputs"][0]["kink"]
    assert first["check"]["agrees"]


def test_nothing_is_left_behind() -> None:
    model = Mixed()
    inputs = torch.randn(2, 1, 8, 8)
    forward = ForwardCalls(model)
    output = model(inputs)
    forward.leave()
    forward.leave()
    loss = output.sum()
    recording = BackwardRecording(loss, model, step=0, calls=forward.calls)
    loss.backward()
    document = recording.finish()
    kept = len(document["visits"])
    model(inputs).sum().backward()
    assert len(document["visits"]) == kept
    assert all(not module._forward_pre_hooks for module in model.modules())
    gone = weakref.ref(output)
    del output, loss
    gc.collect()
    assert gone() is None


class WrongCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * 2 * x**2  # 3 would be right


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return WrongCube.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def test_a_wrong_custom_backward_is_found_at_its_module() -> None:
    model = nn.Sequential(nn.Linear(2, 3), Cube())
    cube, linear = ModuleProbe(model[1], "1"), ModuleProbe(model[0], "0")
    forward = ForwardCalls(model)
    loss = model(torch.ones(4, 2)).sum()
    forward.leave()
    recording = BackwardRecording(loss, model, step=0, calls=forward.calls)
    loss.backward()
    with torch.no_grad():  # the optimizer's step between backward and check
        for parameter in model.parameters():
            parameter.add_(1)
    document = recording.finish()
    node = next(v for v in document["visits"] if "WrongCube" in document["nodes"][v["node"]]["op"])
    assert "check the module around it" in node["check"]["reason"]
    wrong, right = cube.finish(), linear.finish()
    assert not wrong["agrees"]
    assert wrong["difference"] == pytest.approx(1 / 3, rel=1e-3)
    assert right["agrees"]
    assert [one["name"] for one in right["inputs"]] == ["input 0", "weight", "bias"]


def test_where_a_nan_is_born_and_why_it_is_not_checked() -> None:
    document = record_expression("sqrt(x) * y", "x = 0, y = 0")
    assert document["nonfinite"]
    root = next(
        v for v in document["visits"] if document["nodes"][v["node"]]["op"].startswith("Sq")
    )
    assert root["incoming"][0]["values"] == [0.0]
    assert sent(root) == [["nan"]]
    assert "not finite" in root["check"]["reason"]


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        ("(x + ", "x = 1", "Expected a Python expression"),
        ("", "x = 1", "got nothing"),
        ("x = 1", "1, 2", "Expected inputs such as"),
        ("3 * 4", "x = 1", "gives 12; use the names of the inputs"),
        ("x * 2", "", "Expected at least one input"),
        ("x * 2", "x = 'word'", "Expected numbers for the input x"),
        ("import os", "x = 1", "to be an expression or an assignment"),
    ],
)
def test_what_is_no_expression_is_said_in_a_sentence(text: str, inputs: str, message: str) -> None:
    with pytest.raises(InspectorError, match=message.replace("(", r"\(")):
        record_expression(text, inputs)


def test_a_portrait_tells_the_truth_about_a_large_tensor() -> None:
    torch.manual_seed(0)
    tensor = torch.randn(40, 100)
    tensor[3, 7] = float("nan")
    tensor[20, 50] = float("inf")
    record = portrait(tensor)
    assert record is not None
    finite = tensor[tensor.isfinite()]
    assert (record["nan"], record["inf"], record["norm"]) == (1, 1, "nan")
    assert record["mean"] == pytest.approx(float(finite.mean()), rel=1e-4)
    assert record["std"] == pytest.approx(float(finite.std(correction=0)), rel=1e-4)
    assert (record["min"], record["max"]) == pytest.approx(
        (float(finite.min()), float(finite.max()))
    )
    cells = [cell for row in record["map"] for cell in row]
    assert len(record["map"]) == 16
    assert len(record["map"][0]) == 32
    assert {"nan", "inf"} <= {cell for cell in cells if isinstance(cell, str)}
    assert all(min(abs(finite - cell)) < 0.01 for cell in cells[:8] if not isinstance(cell, str))


def test_common_operations_have_a_rule() -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    made = [
        x + 1, x - x, 1 - x, x * x, x / x, x**2, 2**x, x.exp(), x.log(), x.sqrt(), x.tanh(),
        x.sigmoid(), x.relu(), F.gelu(x), F.elu(x), F.silu(x), F.softplus(x), x.abs(),
        x.clamp(0, 1), x.softmax(1), x.log_softmax(1), x.sum(), x.mean(1), x.std(), x.norm(),
        x.max(), x.max(1)[0], F.max_pool2d(x, 2), F.avg_pool2d(x, 2), x.flatten(), x[0], x[:, 1:],
        x[[0, 1]], x.unsqueeze(0), x.permute(1, 0, 2, 3), x.expand(2, 2, 3, 8, 8), x.clone(),
        F.dropout(x), x.double(), F.layer_norm(x, (8,)), F.batch_norm(x, None, None, training=True),
        F.conv2d(x, torch.rand(4, 3, 3, 3)), F.linear(x[0, 0], torch.rand(4, 8), torch.rand(4)),
        F.mse_loss(x, torch.zeros_like(x)), torch.where(x > 0, x, -x), torch.cat([x, x]),
        x.masked_fill(x > 0.5, 0), torch.maximum(x, x),
    ]  # fmt: skip
    missing = [t.grad_fn.name() for t in made if rule_of(t.grad_fn.name()) is None]
    assert missing == []
