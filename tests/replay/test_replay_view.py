"""The view of a recorded pass: titles, formulas, local derivatives, sums, where it went wrong."""

from __future__ import annotations

import json
from typing import Any

from inspector.autograd.expression import record_expression
from inspector.views.replay import replay


def view(text: str, inputs: str) -> dict[str, Any]:
    shown = replay(record_expression(text, inputs))
    json.dumps(shown, allow_nan=False)
    return shown


def test_incoming_times_local_derivative_is_outgoing() -> None:
    shown = view("(x + y)**2", "x = 1, y = 2")
    power, add, *_ = shown["steps"]
    assert power["outgoing"][0]["local"] == 6.0
    assert power["outgoing"][0]["formula"] == "g · n · aⁿ⁻¹"
    assert [one["title"] for one in add["outgoing"]] == ["x", "y"]
    assert [one["local"] for one in add["outgoing"]] == [1.0, 1.0]
    assert "Addition hands the gradient on" in add["words"]


def test_several_arrivals_are_listed() -> None:
    shown = view("a = x * y; a * x", "x = 2, y = 3")
    leaf = next(s for s in shown["steps"] if shown["nodes"][s["node"]]["title"] == "x")
    assert sorted(one["tensor"]["values"][0] for one in leaf["arrivals"]) == [6.0, 6.0]
    assert {one["from"] for one in leaf["arrivals"]} == {"a · MulBackward0", "MulBackward0"}


def test_a_broadcast_input_is_said_to_be_summed_back() -> None:
    shown = view("(a * b).sum()", "a = [[1, 2, 3], [4, 5, 6]], b = [1, 0, -1]")
    assert "summed back to its own shape" in shown["steps"][1]["words"]


def test_the_birth_of_a_nan_is_marked_once() -> None:
    shown = view("sqrt(x) * y", "x = 0, y = 0")
    born = [shown["nodes"][s["node"]]["op"] for s in shown["steps"] if s["born"]]
    assert born == ["SqrtBackward0"]
    assert [bool(s["bad"]) for s in shown["steps"]] == [False, False, True, True]


def test_the_first_bad_value_of_the_forward_pass_is_named() -> None:
    shown = view("u = log(x); v = u * 2; v.sum()", "x = [1, -1]")
    assert shown["first_bad_value"] == "u · LogBackward0 (line 1)"


def test_names_from_a_model_stay_inside_their_labels() -> None:
    document = record_expression("x * 2", "x = 1")
    document["nodes"][-1]["name"] = '"]; evil -> "\\'
    dot = replay(document)["nodes"][-1]["dot"]
    assert dot.startswith('label="\\"]; evil -> \\"\\\\ ·')
