"""Every lesson runs, and what its text claims agrees with a computation that is not autograd's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.lab import plots
from inspector.lab.figures import figure
from inspector.lab.lessons import lessons, setting, with_setting
from inspector.lab.picture import MOST_BOXES, flat, to_dot
from inspector.lab.report import Report
from inspector.lab.sandbox import Sandbox
from inspector.views.graph import GraphTree

ALL = lessons()
_reports: dict[str, Report] = {}


def report_of(sandbox: Sandbox, key: str) -> Report:
    if key not in _reports:
        _reports[key] = sandbox.run(ALL[key].snippet)
    return _reports[key]


def slope(function: Callable[..., float], *at: float, h: float = 1e-6) -> list[float]:
    """Central differences, one for each argument."""
    return [
        (function(*at[:i], at[i] + h, *at[i + 1 :]) - function(*at[:i], at[i] - h, *at[i + 1 :]))
        / (2 * h)
        for i in range(len(at))
    ]


def control_flow(x: float) -> tuple[int, float, float]:
    rounds, y = 0, x
    while y < 10:
        y, rounds = y * 2, rounds + 1
    sign = -1 if rounds % 2 else 1
    return rounds, sign * y, sign * 2.0**rounds


def fermat(weights: list[float]) -> list[float]:
    """The best place for the warehouse, by Weiszfeld's fixed point."""
    towns, place = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 6.0]]), np.array([5.0, 5.0])
    for _ in range(5000):
        pull = np.array(weights) / np.linalg.norm(place - towns, axis=1)
        place = (pull[:, None] * towns).sum(0) / pull.sum()
    return list(place)


def numpy_line() -> dict[str, float]:
    x = np.array([1.0, 2.0, 3.0])
    w, b = slope(lambda w, b: float(((w * x + b - 2 * x) ** 2).mean()), 0.5, 0.1)
    return {"grad_w": w, "grad_b": b, "tw.grad": w, "tb.grad": b}


def chain(f: Callable[[float], float], times: int) -> float:
    """Product of finite differences of a function applied again and again, from 0."""
    return float(np.prod([slope(f, 0.0)[0]] * times))


A, B = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])
ONES = np.ones((2, 2))

ORACLES: dict[str, Callable[[], dict[str, Any]]] = {
    "leaf": lambda: {
        "x.grad": slope(lambda x: (3 * x + 1) ** 2, 2.0)[0],
        "h.grad": slope(lambda h: (h + 1) ** 2, 6.0)[0],
    },
    "requires_grad": lambda: {"b.grad": slope(lambda p, q: (10 + p) * 1 + (20 + q) * 2, 3.0, 4.0),
                              "e": 13.0 * 1 + 24 * 2},
    "chain_rule": lambda: dict(
        zip(("x.grad", "y.grad", "z"), [*slope(lambda x, y: (x + y) ** 2, 1.0, 2.0), 9.0],
            strict=True)
    ),
    "polynomial": lambda: {"y": 16.0, "x.grad": slope(lambda x: x**2 + 2 * x + 1, 3.0)[0]},
    "accumulation": lambda: {
        "piled": list(np.cumsum(slope(lambda w: w**2, 2.0) * 3)),
        "zeroed": slope(lambda w: w**2, 2.0) * 3,
        "w.grad": 4.0,
    },
    "freed_graph": lambda: {"seen": list(np.cumsum(slope(lambda x: x**2, 3.0) * 2))},
    "detach": lambda: {"y": 2.0**4, "x.grad": slope(lambda x: x**2 * 4.0, 2.0)[0]},
    "control_flow": lambda: dict(
        zip(("rounds", "y", "x.grad"), control_flow(0.7), strict=True)
    ),
    "broadcasting": lambda: {"b.grad": [2.0] * 4, "loss": 2 * sum(1 + b for b in (1, 2, 3, 4))},
    "views": lambda: {
        "x.grad": np.arange(1.0, 7.0).reshape(3, 2).T,
        "strides": [[s // 8 for s in a.strides] for a in (np.zeros((2, 3)), np.zeros((2, 3)).T)],
        "shared": [True, False],
    },
    "indexing": lambda: {
        "table.grad": slope(lambda *t: t[0] + 2 * t[2] + 3 * t[2], 10.0, 20.0, 30.0, 40.0),
        "loss": 10.0 + 5 * 30,
    },
    "einsum": lambda: {"C": A @ B, "A.grad": ONES @ B.T, "B.grad": A.T @ ONES},
    "attention": lambda: {"row_sums": [1.0] * 5, "first_q_grad": 0.0},
    "custom_function": lambda: {
        "y": [0.0, 0.5, 2.0],
        "x.grad": slope(lambda a, b, c: max(a, 0) + 10 * max(b, 0) + 100 * max(c, 0), -1, 0.5, 2),
        "right": True,
    },
    "double_backward": lambda: {
        "y": 8.0, "first": slope(lambda x: x**3, 2.0)[0],
        "second": slope(lambda x: 3 * x**2, 2.0)[0], "third": slope(lambda x: 6 * x, 2.0)[0],
    },
    "hooks": lambda: {
        "seen": [slope(lambda a, b: a**2 + b**2, 3.0, 6.0)],
        "x.grad": [-g for g in slope(lambda a, b: (3 * a) ** 2 + (3 * b) ** 2, 1.0, 2.0)],
    },
    "saved_tensors": lambda: {"add": 0.0, "sine": 4 * 1000 * 250 * 4 / 1e6,
                              "product": 4 * 2 * 1000 * 250 * 4 / 1e6},
    "vanishing": lambda: {"at_input": chain(lambda h: 1 / (1 + math.exp(-h)), 20)},
    "exploding": lambda: {"first": 1.2**50},
    "dead_relu": lambda: {"relu_grad": 0.0},
    "clipping": lambda: {"by_norm": [3 / 5, 4 / 5], "by_value": np.clip([3.0, 4.0], -1, 1)},
    "optimizers": lambda: {"end_sgd": [-4 * 0.95**60, 0.0], "end_adam": [-4 + 0.05, 1 - 0.05]},
    "schedules": lambda: {"half_way": (1 + math.cos(math.pi / 2)) / 2, "stepped": 0.3**2},
    "mixed_precision": lambda: {
        "plain16": float(np.float16(1e-8)), "unscaled": 1e-8,
        "smallest": float(np.finfo(np.float16).smallest_subnormal),
    },
    "heat": lambda: {"before": 64 / 256, "heat_kept": 1.0},
    "warehouse": lambda: {"best": fermat([1.0, 1.0, 1.0])},
    "numpy": lambda: {**numpy_line(), "agree": True},
}  # fmt: skip


@pytest.mark.parametrize("key", ALL)
def test_a_lesson_runs_and_its_claims_hold(sandbox: Sandbox, key: str) -> None:
    lesson, report = ALL[key], report_of(sandbox, key)
    assert report.stopped == ""
    assert (report.error.kind if report.error else "") == lesson.error
    if report.error is not None:
        assert report.error.explanation
        assert report.error.line > 0
    for name, claimed in lesson.claims.items():
        close(report.value(name), claimed, name)


@pytest.mark.parametrize("key", [key for key, lesson in ALL.items() if lesson.claims])
def test_claims_agree_with_an_independent_computation(key: str) -> None:
    expected = ORACLES[key]()
    assert set(expected) == set(ALL[key].claims)
    for name, claimed in ALL[key].claims.items():
        close(claimed, expected[name], name)


def close(got: Any, wanted: Any, name: str) -> None:
    got, wanted = np.asarray(got, dtype=float), np.asarray(wanted, dtype=float)
    relative = 1e-3 if name == "unscaled" else 1e-4  # half precision has eleven bits
    absolute = 2e-3 if name == "best" else 0 if 0 < abs(wanted).max() < 1e-5 else 2e-6
    np.testing.assert_allclose(got, wanted, rtol=relative, atol=absolute, err_msg=name)


@pytest.mark.parametrize("key", [key for key, lesson in ALL.items() if lesson.sliders])
def test_sliders_re_run_the_lesson_at_both_ends(sandbox: Sandbox, key: str) -> None:
    lesson = ALL[key]
    for slider in lesson.sliders:
        assert slider.low <= slider.default <= slider.high
        for end in (slider.low, slider.high):
            snippet = with_setting(lesson.snippet, slider.name, end)
            assert setting(snippet, slider.name) == end
            report = sandbox.run(snippet)
            assert report.stopped == ""
            if not lesson.error:
                assert report.error is None, report.error
            for plot in report.plots:
                assert figure(plot).data


@pytest.mark.parametrize("key", ALL)
def test_a_lesson_is_complete_and_can_be_drawn(sandbox: Sandbox, key: str) -> None:
    lesson, report = ALL[key], report_of(sandbox, key)
    for text in (lesson.chapter, lesson.title, lesson.notice, lesson.question, lesson.answer):
        assert text.strip()
    assert len(lesson.snippet.splitlines()) <= 45
    assert max(map(len, lesson.snippet.splitlines())) <= 110
    for graph in report.graphs:
        document = graph.document
        if len(document["nodes"]) <= MOST_BOXES:
            assert to_dot(document, flat(document)).count(" -> ") == len(flat(document).edges)
        else:
            assert list(GraphTree(document).fold().boxes())


def test_every_lesson_has_a_slider_or_two_and_says_what_they_change(sandbox: Sandbox) -> None:
    for key, lesson in ALL.items():
        assert 1 <= len(lesson.sliders) <= 2, key
        for slider in lesson.sliders:
            moved_to = slider.low if slider.default != slider.low else slider.high
            changed = moved(sandbox, key, **{slider.name: moved_to})
            before = report_of(sandbox, key)
            assert (changed.values, changed.tensors, changed.error, changed.plots) != (
                before.values, before.tensors, before.error, before.plots
            ), (key, slider.name)  # fmt: skip


def test_the_graph_is_freed_one_pass_after_the_last_that_kept_it(sandbox: Sandbox) -> None:
    for retained, passes in ((0, 1), (1, 2), (2, 3), (3, 3)):
        report = moved(sandbox, "freed_graph", retained=retained)
        assert len(report.value("seen")) == passes
        assert (report.error is None) == (retained >= 2)


def test_no_change_in_place_is_no_error_and_three_are_counted(sandbox: Sandbox) -> None:
    assert moved(sandbox, "in_place", changes=0).ok
    error = moved(sandbox, "in_place", changes=3).error
    assert error is not None
    assert "version 3" in error.message


def test_one_row_needs_no_copy_and_a_kink_has_no_derivative(sandbox: Sandbox) -> None:
    assert moved(sandbox, "views", rows=1).value("shared") == [True, True]
    error = moved(sandbox, "custom_function", middle=0.0).error
    assert error is not None
    assert "Jacobian mismatch" in error.message


def test_there_are_enough_lessons_and_each_has_one_key() -> None:
    assert len(ALL) >= 25
    assert all(re.fullmatch(r"[a-z_0-9]+", key) for key in ALL)


# What texts say beyond the claims.


def moved(sandbox: Sandbox, key: str, **settings: float) -> Report:
    snippet = ALL[key].snippet
    for name, value in settings.items():
        snippet = with_setting(snippet, name, value)
    return sandbox.run(snippet)


def test_the_bottom_of_the_valley_has_no_slope(sandbox: Sandbox) -> None:
    report = moved(sandbox, "chain_rule", start_x=-2.0)
    assert (report.value("x.grad"), report.value("y.grad")) == (0.0, 0.0)
    assert moved(sandbox, "polynomial", start=-1.0).value("x.grad") == 0.0


def test_one_doubling_more_below_0_625(sandbox: Sandbox) -> None:
    for start in (0.6, 0.7):
        report = moved(sandbox, "control_flow", start=start)
        rounds, _, gradient = control_flow(start)
        assert (report.value("rounds"), report.value("x.grad")) == (rounds, gradient)
    assert (control_flow(0.6)[0], control_flow(0.7)[0]) == (5, 4)


def test_the_dead_unit_stays_dead_and_a_smaller_rate_saves_it(sandbox: Sandbox) -> None:
    report = report_of(sandbox, "dead_relu")
    assert report.value("relu")[1:] == [1.0] * 7
    assert report.value("leaky_grad") != 0.0
    saved = moved(sandbox, "dead_relu", lr=0.05)
    assert saved.value("relu_grad") != 0.0
    assert saved.value("relu")[-1] < 0.3


def test_clipping_at_3_5(sandbox: Sandbox) -> None:
    report = moved(sandbox, "clipping", limit=3.5)
    np.testing.assert_allclose(report.value("by_norm"), [2.1, 2.8], rtol=1e-5)
    np.testing.assert_allclose(report.value("by_value"), [3.0, 3.5], rtol=1e-5)


def test_sgd_flies_out_beyond_a_tenth(sandbox: Sandbox) -> None:
    calm, wild = (moved(sandbox, "optimizers", lr=lr) for lr in (0.095, 0.105))
    assert calm.value("heights")["SGD"][-1] < 1
    assert wild.value("heights")["SGD"][-1] > 100


def test_the_far_town_wins_from_1_9_lorries(sandbox: Sandbox) -> None:
    pull = 2 * 6 / math.hypot(2, 6)
    assert pull == pytest.approx(1.897, abs=1e-3)
    at, before = (moved(sandbox, "warehouse", weight=w).value("best") for w in (2.2, 1.5))
    assert math.dist(at, [2, 6]) < 0.2
    assert math.dist(before, [2, 6]) > 0.5
    np.testing.assert_allclose(before, fermat([1, 1, 1.5]), atol=5e-2)


def test_variance_through_fifty_layers(sandbox: Sandbox) -> None:
    report = report_of(sandbox, "initialisation")
    assert abs(math.log2(report.value("xavier_relu")) + 25) < 3
    assert 0.1 < report.value("kaiming_relu") < 10


def test_a_scale_of_2_to_the_45_overflows(sandbox: Sandbox) -> None:
    report = moved(sandbox, "mixed_precision", exponent=45)
    assert report.value("scaled16") == math.inf
    kept = report_of(sandbox, "mixed_precision").value("scaled16")
    assert kept == pytest.approx(float(np.float16(1e-8 * 2**16)), rel=1e-6)


def test_a_small_temperature_saturates_attention(sandbox: Sandbox) -> None:
    def gradient(temperature: float) -> float:
        report = moved(sandbox, "attention", temperature=temperature)
        return float(np.linalg.norm(report.value("q.grad")))

    assert gradient(0.05) < 0.5 * gradient(1.0)


def test_mul_instead_of_exp_may_be_changed_in_place(sandbox: Sandbox) -> None:
    assert sandbox.run(ALL["in_place"].snippet.replace("x.exp()", "x.mul(2)")).ok


def test_the_wrong_relu_is_caught_by_gradcheck(sandbox: Sandbox) -> None:
    wrong = ALL["custom_function"].snippet.replace("arriving * (x > 0)", "arriving * (x > 1)")
    report = sandbox.run(wrong)
    assert report.error is not None
    assert "Jacobian mismatch" in report.error.message
    assert "finite differences" in report.error.explanation


def test_shapes_that_fit(sandbox: Sandbox) -> None:
    fits = [n for n in range(1, 7) if moved(sandbox, "shape_mismatch", last=n).ok]
    assert fits == [1, 4]


def test_texts_are_sentences() -> None:
    for key, lesson in ALL.items():
        assert lesson.notice.endswith((".", "`.")), key
        assert lesson.question.endswith("?") or "Write" in lesson.question, key


def test_the_documentation_lists_every_lesson_and_its_example_draws() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "lab.md").read_text("utf-8")
    for key, lesson in ALL.items():
        assert f"| {lesson.title} | `?lesson={key}` |" in text
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    plots.take()
    exec(example, {})
    drawn = plots.take()
    assert [plot["kind"] for plot in drawn] == ["lines", "vectors", "heatmap", "paths"]
    assert all(figure(plot).data for plot in drawn)


def test_lessons_of_a_chapter_lie_together() -> None:
    chapters = [lesson.chapter for lesson in ALL.values()]
    changes = [a for a, b in zip(chapters, [*chapters[1:], ""], strict=True) if a != b]
    assert len(changes) == len(set(chapters))
