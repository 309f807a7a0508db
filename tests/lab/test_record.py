"""What is recorded of a snippet: tensors, values at the nodes, errors explained."""

from __future__ import annotations

import pytest

from inspector.lab import record
from inspector.lab.explain import aligned
from inspector.lab.report import Report


@pytest.fixture(autouse=True)
def own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def ran(*lines: str) -> Report:
    return record.run("import torch\n" + "\n".join(lines))


def node(report: Report, op: str, graph: int = -1) -> dict:  # type: ignore[type-arg]
    nodes = report.graphs[graph].document["nodes"]
    return next(n for n in nodes if n["op"] == op or n["parameter"] == op)


def test_every_node_carries_name_value_and_gradient() -> None:
    report = ran(
        "x = torch.tensor(1.0, requires_grad=True)",
        "y = torch.tensor(2.0, requires_grad=True)",
        "s = x + y",
        "z = s ** 2",
        "z.backward()",
    )
    shown = [
        (n["name"], n["value"], n["gradient"], n["line"])
        for n in (node(report, op) for op in ("x", "y", "AddBackward0", "PowBackward0"))
    ]
    assert shown == [("x", 1.0, 6.0, 0), ("y", 2.0, 6.0, 0), ("s", 3.0, 6.0, 4), ("z", 9.0, 1.0, 5)]
    assert report.graphs[0].label == "backward, line 6"


def test_accumulated_gradients_are_told_from_the_one_that_arrived() -> None:
    report = ran(
        "x = torch.tensor(3.0, requires_grad=True)",
        "for _ in range(2):",
        "    (x * 5).backward()",
    )
    leaf = node(report, "x")
    assert (leaf["gradient"], leaf["grad_after"]) == (5.0, 10.0)


def test_parameters_of_modules_and_locals_of_functions_have_names() -> None:
    report = ran(
        "net = torch.nn.Sequential(torch.nn.Linear(2, 1))",
        "def loss_of(batch):",
        "    hidden = net(batch)",
        "    hidden.sum().backward()",
        "loss_of(torch.ones(1, 2))",
    )
    assert node(report, "net.0.weight")["gradient"] is not None or report.graphs
    assert node(report, "AddmmBackward0")["name"] == "hidden"
    assert report.value("net.0.weight.grad") == [[1.0, 1.0]]


def test_without_backward_the_last_tensor_is_drawn() -> None:
    report = ran("x = torch.ones(2, requires_grad=True)", "loss = (x * 3).sum()", "other = x + 1")
    assert report.graphs[0].label == "graph of loss"
    assert node(report, "SumBackward0")["value"] == 6.0


def test_only_calls_of_the_snippet_itself_count() -> None:
    report = ran(
        "x = torch.ones(2, dtype=torch.double, requires_grad=True)",
        "torch.autograd.gradcheck(torch.sin, (x,))",
    )
    assert all("line 3" not in graph.label for graph in report.graphs)


def test_many_passes_keep_the_first_graphs() -> None:
    report = ran(
        "x = torch.ones(2, requires_grad=True)",
        "for _ in range(50):",
        "    (x * 2).sum().backward()",
    )
    assert len(report.graphs) == 4
    assert any("first 4 of 50" in note for note in report.notes)
    assert report.value("x.grad") == [100.0, 100.0]


def test_watching_changes_no_number() -> None:
    import torch

    lines = (
        "torch.manual_seed(3)",
        "net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))",
        "opt = torch.optim.Adam(net.parameters(), lr=0.1)",
        "for _ in range(5):",
        "    opt.zero_grad(); net(torch.ones(2, 3)).square().sum().backward(); opt.step()",
    )
    report = ran(*lines)
    plain: dict[str, object] = {}
    exec("import torch\n" + "\n".join(lines), plain)
    for name, parameter in plain["net"].named_parameters():  # type: ignore[attr-defined]
        assert report.value(f"net.{name}") == parameter.tolist()
    assert torch.autograd.backward.__module__ == "torch.autograd"


@pytest.mark.parametrize(
    ("lines", "words", "line"),
    [
        (("x = torch.ones(3, requires_grad=True)", "y = x.exp()", "y += 1", "y.sum().backward()"),
         "exp (line 3)", 5),
        (("x = torch.ones(3, requires_grad=True)", "y = (x * x).sum()", "y.backward()",
          "y.backward()"), "retain_graph=True", 5),
        (("x = torch.ones(3)", "x.sum().backward()"), "requires gradients", 3),
        (("x = torch.ones(3, requires_grad=True)", "(x * 2).backward()"), "one number", 3),
        (("x = torch.ones(3, requires_grad=True)", "x += 1"), "leaf", 3),
        (("x = torch.ones(3, requires_grad=True)", "x[0] = 1"), "a view of it", 3),
        (("x = torch.tensor(3, requires_grad=True)",), "3.0 instead of 3", 2),
        (("x = torch.ones(3, requires_grad=True)", "x.numpy()"), ".detach().numpy()", 3),
        (("x = torch.ones(2, 3).T", "x.view(6)"), "reshape()", 3),
        (("x = torch.ones(6)", "x.reshape(4, 2)"), "as many elements as there are: 6", 3),
        (("x = torch.ones(2, 3)", "x[5]"), "0 to its size minus one", 3),
        (("x = torch.ones(2)", "x[0, 0]"), "more indices", 3),
        (("x = torch.ones(2)", "if x > 0: pass"), ".any() or .all()", 3),
        (("torch.ones(2, 2) @ torch.ones(2, 2).double()",), "number types", 2),
        (("a, b = torch.ones(2, 3), torch.ones(2, 3)", "a @ b"), "columns of the first (3)", 3),
        (("torch.einsum('ij,jk->ik', torch.ones(2, 3), torch.ones(4, 5))",), "two different", 2),
        (("x = torch.ones(2, requires_grad=True)", "y = torch.ones(2, requires_grad=True)",
          "torch.autograd.grad(x.sum(), y)"), "allow_unused=True", 4),
        (("np.ones(2)",), "import what it uses", 2),
        (("class F(torch.autograd.Function):", "    forward = staticmethod(lambda c, a, b: a * b)",
          "    backward = staticmethod(lambda c, g: g)", "x = torch.ones(2, requires_grad=True)",
          "F.apply(x, x).sum().backward()"), "2 here", 6),
    ],
)  # fmt: skip
def test_common_errors_are_explained(lines: tuple[str, ...], words: str, line: int) -> None:
    error = ran(*lines).error
    assert error is not None
    assert words in error.explanation, (error.message, error.explanation)
    assert error.line == line


def test_shapes_are_aligned_from_the_right() -> None:
    report = ran("a, b = torch.ones(8, 3, 4), torch.ones(3, 5)", "a + b")
    assert report.error is not None
    assert report.error.shapes.splitlines() == [
        "a:  8 × 3 × 4",
        "b:      3 × 5",
        "            ↑  these clash",
    ]
    assert aligned([(2, 10, 1), (10, 3)]).splitlines() == ["a:  2 × 10 × 1", "b:      10 × 3"]


def test_matrix_products_show_where_they_meet() -> None:
    report = ran("torch.ones(2, 3) @ torch.ones(4, 5)")
    assert report.error is not None
    first, marks = report.error.shapes.splitlines()
    assert first == "2 × 3  @  4 × 5"
    assert [first[at] for at, mark in enumerate(marks[: len(first)]) if mark == "↑"] == ["3", "4"]
