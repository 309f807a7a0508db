"""Folding, opening, escaping and colouring of graphs; documents made by hand, no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from inspector.views.graph import Box, FoldedGraph, GraphTree, fold
from inspector.views.graph_details import details
from inspector.views.graph_dot import BAD, VIRIDIS, colour, escape, on, to_dot
from inspector.views.graph_measures import size

HOSTILE = [
    '"]; a->b [x="',
    "<b>bold</b>&amp;",
    "line\nbreak",
    "back\\slash\\",
    "ünï→漢字",
    "\\N\\G",
]


def node(position: int, op: str, module: str | None, **facts: Any) -> dict[str, Any]:
    leaf = {"accumulated": 0} if op == "AccumulateGrad" else {}
    return {
        "id": position, "op": op, "module": module, "call": 0, "file": "/a/b/net.py", "line": 3,
        "shape": [2, 3], "dtype": "float32", "outputs": 1, "parameter": None, "accumulated": None,
        "saved": [], "saved_bytes": 10, "grad_norm": 1.0, "nonfinite": "", **leaf, **facts,
    }  # fmt: skip


def document(nodes: list[dict[str, Any]], edges: list[list[int]]) -> dict[str, Any]:
    calls: dict[str, int] = {"": 0}
    for item in nodes:
        path = item["module"]
        if path is None:
            continue
        calls[path] = max(calls.get(path, 0), item["call"] + 1)
        while path:
            path = path.rpartition(".")[0]
            calls.setdefault(path, 0)
    return {
        "format": 1, "step": 4, "model": "Net", "complete": True, "nodes": nodes, "edges": edges,
        "modules": {path: {"type": f"T{path.count('.')}", "calls": n} for path, n in calls.items()},
        "notes": [], "saved_bytes": 0, "torchviz": "", "seconds": 0.0,
    }  # fmt: skip


def chain(modules: list[str | None], **facts: Any) -> dict[str, Any]:
    nodes = [node(i, f"Op{i}Backward0", module, **facts) for i, module in enumerate(modules)]
    return document(nodes, [[i, i + 1] for i in range(len(nodes) - 1)])


def boxes(folded: FoldedGraph) -> list[Box]:
    return list(folded.boxes())


def test_a_small_graph_is_opened_completely() -> None:
    folded = fold(chain(["a", "b.c", "b.c", None]))
    assert [box.title for box in boxes(folded)] == [f"Op{i}Backward0" for i in range(4)]
    assert folded.edges == (("n0", "n1", 1), ("n1", "n2", 1), ("n2", "n3", 1))


def test_a_large_graph_opens_at_the_level_that_fits() -> None:
    modules = [f"stage{s}.block{b}.op{o}" for s in range(4) for b in range(8) for o in range(9)]
    tree = GraphTree(chain([*modules, None]))
    folded = tree.fold()
    assert len(boxes(folded)) == 33
    assert boxes(folded)[0].title == "stage0.block0"
    assert boxes(folded)[0].ops == 9
    assert boxes(folded)[0].subtitle == "T1 · 9 × T2"


def test_every_node_is_in_exactly_one_box_whatever_is_open() -> None:
    modules: list[str | None] = [f"s{i % 5}.b{i % 3}" for i in range(200)]
    tree = GraphTree(chain(modules))
    for opened in (frozenset(), tree.opening(), frozenset(tree.folds)):
        folded = tree.fold(opened)
        assert sum(box.ops for box in boxes(folded)) == 200


def test_edges_between_boxes_are_counted_and_inner_ones_left_out() -> None:
    folded = GraphTree(chain(["a", "b", "a", "b", None])).fold({"m:"})
    by_title = {box.id: box.title for box in boxes(folded)}
    edges = {(by_title[a], by_title[b]): count for a, b, count in folded.edges}
    assert edges == {("a", "b"): 2, ("b", "a"): 1, ("b", "Op4Backward0"): 1}


def test_many_calls_fold_into_one_box_and_open_in_ranges() -> None:
    nodes = [node(i, "MulBackward0", "cell", call=i // 3) for i in range(3000)]
    tree = GraphTree(document(nodes, [[i, i + 1] for i in range(2999)]))
    (box,) = boxes(tree.fold())
    assert (box.title, box.subtitle, box.ops) == ("cell", "T0 × 1000", 3000)
    ranges = boxes(tree.fold({"m:", "m:cell"}))
    assert [r.title for r in ranges][:2] == ["call 0 … call 99", "call 100 … call 199"]
    inner = boxes(tree.fold({"m:", "m:cell", ranges[0].key}))
    assert inner[0].title == "call 0 … call 9"
    assert len(inner) == 19


def test_many_operations_of_one_line_are_gathered() -> None:
    nodes = [node(i, "AddBackward0", None, line=i % 2) for i in range(100)]
    folded = fold(document(nodes, []))
    assert [(b.title, b.subtitle) for b in boxes(folded)] == [
        ("net.py:0", "AddBackward0 × 50"), ("net.py:1", "AddBackward0 × 50"),
    ]  # fmt: skip


def test_never_more_boxes_than_the_limit_and_a_note_says_so() -> None:
    modules: list[str | None] = [f"a{i % 30}.b{i % 29}" for i in range(2000)]
    tree = GraphTree(chain(modules))
    folded = tree.fold(frozenset(tree.folds), limit=300)
    assert len(boxes(folded)) <= 300
    assert "300 boxes" in folded.notes[-1]
    assert folded.expanded < frozenset(tree.folds)


def test_folding_further_ends_with_nothing_open() -> None:
    tree = GraphTree(chain([f"a.b{i}.c" for i in range(9)] + [f"a.b{i}.d" for i in range(9)]))
    opened = frozenset(tree.folds)
    sizes = []
    while opened:
        opened = tree.fewer(opened)
        sizes.append(len(boxes(tree.fold(opened))))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_the_norm_of_a_fold_is_that_at_its_outputs() -> None:
    made = chain(["a", "a", "b"])
    for item, norm in zip(made["nodes"], (7.0, 3.0, 4.0), strict=True):
        item["grad_norm"] = norm
    by_title = {box.title: box for box in boxes(GraphTree(made).fold({"m:"}))}
    assert (by_title["a"].norm, by_title["b"].norm) == (3.0, 4.0)


def test_the_box_where_nan_is_born_is_marked() -> None:
    made = chain(["a", "b", "c"])
    made["nodes"][0].update(grad_norm=None, nonfinite="nan")
    folded = GraphTree(made).fold({"m:"})
    assert [(b.title, b.nonfinite, b.born) for b in boxes(folded)] == [
        ("a", "nan", False), ("b", "", True), ("c", "", False),
    ]  # fmt: skip
    dot = to_dot(folded)
    assert "gradient is NaN" in dot
    assert "first non-finite leaves here" in dot
    assert BAD in dot


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_inside_their_label(name: str) -> None:
    made = chain([name.replace(".", ""), None])
    made["nodes"][1]["op"] = name
    dot = to_dot(fold(made))
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', dot)
    assert set(re.findall(r"(\w+) ->", outside)) <= {"n0", "n1"}
    assert "<" not in outside
    assert outside.count("{") == outside.count("}")


def test_escaped_text_reads_back_verbatim() -> None:
    assert escape('a"b\\c&d') == 'a\\"b\\\\c&amp;d'
    assert escape("x\ny") == "x␊y"
    assert escape("\ud800") == "?"


def test_colours_run_over_the_logarithmic_scale() -> None:
    assert colour(1e-6, 1e-6, 1.0) == VIRIDIS[0]
    assert colour(1.0, 1e-6, 1.0) == VIRIDIS[-1]
    assert colour(1e-3, 1e-6, 1.0) == VIRIDIS[5]
    assert colour(0.0, 1e-6, 1.0) == VIRIDIS[0]
    assert colour(2.0, 2.0, 2.0) == VIRIDIS[-1]
    assert colour(None, 1.0, 2.0) is None
    assert (on(VIRIDIS[0]), on(VIRIDIS[-1])) == ("#ffffff", "#111111")


def test_denormal_norms_do_not_stretch_the_scale() -> None:
    made = chain(["a", "b"])
    made["nodes"][0]["grad_norm"] = 1e-45
    folded = fold(made)
    assert (folded.low, folded.high) == (1e-12, 1.0)


def test_a_parameter_of_many_boxes_has_one_arrow() -> None:
    nodes = [node(0, "AccumulateGrad", "a", parameter="a.w")]
    nodes += [node(i, "MulBackward0", None) for i in range(1, 11)]
    dot = to_dot(fold(document(nodes, [[0, i] for i in range(1, 11)])))
    assert dot.count("->") == 1
    assert "and in 9 more boxes" in dot


def test_details_of_a_node_and_of_a_fold() -> None:
    made = chain(["a", "a", None])
    made["nodes"][1]["saved"] = [
        {"name": "self", "shape": [2], "dtype": "float32", "bytes": 8, "parameter": "a.w",
         "note": ""},
        {"name": "other", "shape": None, "dtype": "", "bytes": 0, "parameter": None,
         "note": "freed"},
    ]  # fmt: skip
    tree = GraphTree(made)
    found = details(tree, "o:1")
    assert found is not None
    assert ("line", "/a/b/net.py:3") in found.rows
    assert ("output", "2 × 3 float32") in found.rows
    assert found.saved == (
        ("self", "2", "float32", "8 B", "parameter a.w"), ("other", "?", "", "0 B", "freed"),
    )  # fmt: skip
    whole = details(tree, "m:a")
    assert whole is not None
    assert ("saved for backward", "20 B") in whole.rows
    assert details(tree, "o:99") is None
    assert details(tree, "m:gone") is None
    assert size(3 * 1024**2) == "3.0 MiB"


def test_an_empty_graph_folds_to_nothing() -> None:
    folded = fold(document([], []) | {"modules": {}, "notes": ["why"]})
    assert boxes(folded) == []
    assert folded.notes == ("why",)


def test_viewing_needs_no_torch() -> None:
    code = (
        "import inspector.views.graph_dot, inspector.views.graph_details, sys; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_few_calls_without_parameters_stand_where_they_happen() -> None:
    made = chain(["b.conv1", "b.relu", "b.conv2", "b.relu", None])
    made["nodes"][3]["call"] = 1
    made["modules"]["b.relu"]["calls"] = 2
    folded = GraphTree(made).fold({"m:", "m:b"})
    assert [box.title for box in boxes(folded)] == [
        "b.conv1", "b.relu · call 0", "b.conv2", "b.relu · call 1", "Op4Backward0",
    ]  # fmt: skip
    assert [edge[:2] for edge in folded.edges] == [(f"n{i}", f"n{i + 1}") for i in range(4)]


def test_a_gradient_of_zero_is_at_the_low_end() -> None:
    assert colour(0.0, 1.0, 1.0) == VIRIDIS[0]
