"""The health page: what a person reads about modules that are seen, blind, or never ran."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import nn

import inspector
from inspector.capture.structure import _AT_ANY_COST, FIRST_STEPS
from inspector.charts.costs import cost_figure
from inspector.events import CommandRefused, ProbeFailed, ScheduleChanged
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.ui.context import escape
from inspector.views import cost as view
from inspector.views.absent import absent
from inspector.views.cost import Change, schedule_words
from inspector.views.health import health_badge, module_health
from tests.app.in_process import open_app, open_page, turn_to


class Odd(nn.Module):
    """A module that is seen, one that is called past its hooks, an unused and a blind one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Linear(4, 4)
        self.past = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.parts = nn.ModuleList([nn.ReLU()])
        self.compiled = torch.compile(nn.Sequential(nn.Linear(4, 4)), backend="eager")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.parts[0](self.past.forward(self.seen(x)))
        return self.compiled(x)


def train(model: nn.Module, folder: Path, name: str, *, announced: bool = True) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=folder, name=name, every=1) as watch:
        for _ in range(6):
            optimizer.zero_grad()
            loss = model(torch.randn(3, 4)).square().mean()
            if announced:
                watch.record(loss=loss)
            loss.backward()
            optimizer.step()
        if name == "odd":
            watch.event(ScheduleChanged(probe="modules and parameters", every=5, reason="so"))
            watch.event(ProbeFailed(probe="histograms", error="ValueError: <b>no</b>"))


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    torch._dynamo.reset()
    train(Odd(), folder, "odd")
    train(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), folder, "sound")
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))
    train(scripted, folder, "scripted", announced=False)
    return folder


@pytest.fixture
def page(runs_dir: Path) -> AppTest:
    return open_page(runs_dir, "health")


def shown(page: AppTest, run: str) -> str:
    page.session_state["run"] = run
    page.run()
    assert not page.exception, page.exception
    kinds = (page.markdown, page.caption, page.info, page.error, page.warning, page.success)
    return "\n".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def test_modules_that_are_not_seen_are_listed_with_the_reason_and_what_helps(page: AppTest) -> None:
    text = shown(page, "odd")
    assert "Blind: past" in text and "self.block(x)" in text
    assert "Blind: compiled.0" in text and "TORCH_COMPILE_DISABLE=1" in text
    assert "Never ran: unused" in text
    table = page.dataframe[0].value.set_index("path")
    sights = {"seen": "seen", "past": "blind", "unused": "never ran", "compiled.0": "blind"}
    assert {path: table.loc[path, "sight"] for path in sights} == sights
    assert "parts" not in table.index
    assert "histograms" in text and "<b>no</b>" in text and "is off" in text
    assert "Examining the program (first 16 steps)" in text
    assert "1 change of the schedule" in [expander.label for expander in page.expander]


def test_a_model_that_is_seen_says_so(page: AppTest) -> None:
    assert "Every module is seen" in shown(page, "sound")


def test_gradients_that_are_seen_late_are_said_to_be(page: AppTest) -> None:
    assert "perhaps already clipped" in shown(page, "scripted")


def test_badges(runs_dir: Path) -> None:
    with inspector.open_run(runs_dir / "sound") as run:
        badge = health_badge(run)
        assert badge is not None
        assert (badge.count, badge.text, badge.level) == (0, "every module is seen", "good")
        cost = view.cost(run)
        assert cost.first is not None and 0 < cost.first < 1 and cost.recent is None
    with inspector.open_run(runs_dir / "odd") as run:
        badge = health_badge(run)
        assert badge is not None and badge.level == "warning"
        assert "1 never ran" in badge.text and "1 switched off" in badge.text
        assert "blind" in badge.text


def test_a_model_whose_parts_are_called_one_by_one_is_nothing_to_worry_about() -> None:
    never = {"badge": "never called"}
    document = {"modules": [
        {"path": "", "type": "GAN", **never}, {"path": "g", "type": "Linear"},
        {"path": "d", "type": "Sequential", **never}, {"path": "d.0", "type": "Linear", **never},
    ]}  # fmt: skip
    found = {module.path: module for module in module_health(document)}
    assert {path: module.sight for path, module in found.items()} == {
        "(model)": "no statistics", "g": "seen", "d": "never ran", "d.0": "never ran",
    }  # fmt: skip
    assert "its parts are called one by one" in found["(model)"].reason


def costing(folder: Path, name: str, shares: list[float], seconds: list[float]) -> Path:
    """A run of steps from 1 on, whose own time and whose time of watching are known."""
    path = create_run(folder, name, {})
    parts = ("overhead_updates", "overhead_gradients", "overhead_histograms")
    keys = tuple(map(SeriesKey, ("step_time", "overhead", *parts)))
    with closing(Writer(path)) as writer:
        for step, (share, wall) in enumerate(zip(shares, seconds, strict=True), 1):
            row = [wall, share, 3 * share / 8, share / 8, share / 16]
            writer.append("run", step, keys, np.array(row, np.float32))
            if step % 1000 == 0:
                writer.flush()
        writer.heartbeat(len(shares) + 1, "running", total_steps=None)
    return path


def test_the_first_steps_are_said_to_be_those_of_the_examination(tmp_path: Path) -> None:
    assert (view.EXAMINED, view.ANY_COST) == (FIRST_STEPS, _AT_ANY_COST)
    path = costing(tmp_path, "young", [4.0, 0.5], [0.01, 0.09])
    with inspector.open_run(path) as run:
        cost = view.cost(run)
        (said,) = view.cost_words(cost)
        assert view.cost_windows(run) == []
    assert cost.first == pytest.approx((4.0 * 0.01 + 0.5 * 0.09) / 0.1)
    assert cost.recent is None
    assert said.startswith("Examining the program (first 16 steps)") and "85.0%" in said
    with inspector.open_run(costing(tmp_path, "newborn", [], [])) as run:
        assert view.cost_words(view.cost(run)) == ["The cost is known after the second step."]


def test_the_cost_is_that_of_several_steps_by_the_time_of_these(tmp_path: Path) -> None:
    start, rest = [0.9] * 15, [0.02] * 400
    shares, seconds = start + rest, [0.01] * len(start + rest)
    for spike in range(60, 400, 50):  # put in order between two steps, charged to a short one
        shares[spike], seconds[spike] = 6.0, 0.001
    path = costing(tmp_path, "old", shares, seconds)
    with inspector.open_run(path) as run:
        cost, windows = view.cost(run), view.cost_windows(run)
        said = " ".join(view.cost_words(cost))
    own, wall = np.multiply(shares, seconds), np.array(seconds)
    late = slice(-200, None)
    assert cost.recent == pytest.approx(own[late].sum() / wall[late].sum(), rel=1e-2)
    assert cost.first == pytest.approx(0.9, rel=1e-3)
    parts = {"calls of hooks and the rest": 4, "updates": 3, "gradients": 1, "histograms": 0.5}
    assert dict(cost.probes) == pytest.approx(
        {title: eighths / 8 * cost.recent for title, eighths in parts.items()}, rel=1e-3
    )
    assert "the rest 1.5%, updates 1.1%, gradients 0.4%, histograms 0.2% (within the oth" in said
    assert [first for first, *_ in windows] == list(range(16, 415, 50))
    assert max(share for *_, share in windows) < 0.04  # though single steps cost 600 %
    assert "**2.9%** of the time of the last" in said
    assert "In the first 16 steps" in said and "90.0%; that comes once" in said


def test_a_part_is_a_share_of_the_time_since_it_was_last_told(tmp_path: Path) -> None:
    """Ten thousand short steps, of which few say what the probes have taken since."""
    path, rng = create_run(tmp_path, "told", {}), np.random.default_rng(0)
    part, steps = SeriesKey("overhead_updates"), 10_000
    own, walls = rng.uniform(0, 4e-5, steps), rng.uniform(2e-4, 6e-4, steps)
    told = sorted({steps - 1, *rng.choice(np.arange(40, steps), 30, replace=False).tolist()})
    with closing(Writer(path)) as writer:
        before = 0
        for step in range(1, steps):
            keys, row = (SeriesKey("step_time"), SeriesKey("overhead")), [walls[step], 0.1]
            if step in told:
                since = slice(before + 1, step + 1)
                keys, row = (*keys, part), [*row, own[since].sum() / walls[since].sum()]
                before = step
            writer.append("run", step, keys, np.array(row, np.float32))
            if step % 1000 == 0:
                writer.flush()
        writer.heartbeat(steps, "running", total_steps=None)
    with inspector.open_run(path) as run:
        found = dict(view.cost(run).probes)
    last = slice(told[-9] + 1, None)  # eight tellings: the last 200 steps have fewer
    assert found["updates"] == pytest.approx(own[last].sum() / walls[last].sum(), rel=1e-4)
    assert found["calls of hooks and the rest"] == pytest.approx(0.1 - found["updates"], rel=1e-4)


def test_the_schedule_in_words() -> None:
    assert "there was no need to thin" in schedule_words(0, [])
    assert "at every step" in schedule_words(1, [])
    made = [Change(3, "modules", 2, ""), Change(40, "modules", 20, "")]
    assert "modules every 20 steps since step 40" in schedule_words(0, made)


def test_the_cost_is_told_over_whole_rounds_of_a_thin_schedule(tmp_path: Path) -> None:
    shares = [1.0 if step % 500 == 0 else 0.01 for step in range(1, 5001)]
    path = costing(tmp_path, "thin", shares, [0.01] * len(shares))
    with closing(Writer(path)) as writer:
        writer.event(10, ScheduleChanged(probe="modules and parameters", every=500))
    with inspector.open_run(path) as run:
        cost, windows = view.cost(run), view.cost_windows(run)
        said = view.cost_words(cost)[0]
    assert cost.steps in (2000, 2001)
    assert cost.recent == pytest.approx(0.01 + 0.99 / 500, rel=0.3)
    assert [last - first + 1 for first, last, _ in windows[:-1]] == [500] * (len(windows) - 1)
    assert max(share for *_, share in windows) < 0.015  # no stretch is all the dear steps has
    assert "budget" not in said


def test_a_cost_over_the_budget_is_said_to_be(tmp_path: Path) -> None:
    path = costing(tmp_path, "dear", [0.08] * 300, [0.01] * 300)
    with inspector.open_run(path) as run:
        said = view.cost_words(view.cost(run))[0]
    assert "**8.0%**" in said and "more than the budget of 3%" in said
    with closing(Writer(path)) as writer:
        writer.heartbeat(301, "running", total_steps=None, controls={"capture_every": 1})
    with inspector.open_run(path) as run:
        assert "budget" not in view.cost_words(view.cost(run))[0]  # as was asked for


def test_examining_the_program_is_said_to_be_what_costs(tmp_path: Path) -> None:
    for steps, reason in ((380, "in the first 400 steps"), (900, "another program")):
        path = create_run(tmp_path, f"for {steps}", {})
        keys = tuple(map(SeriesKey, ("step_time", "overhead", "overhead_structure")))
        with closing(Writer(path)) as writer:
            for step in range(1, steps):
                writer.append("run", step, keys, np.array([0.01, 0.08, 0.06], np.float32))
            writer.heartbeat(steps, "running", total_steps=None)
        with inspector.open_run(path) as run:
            assert reason in view.cost_words(view.cost(run))[0]


def test_the_schedule_is_chosen_on_the_page(tmp_path: Path) -> None:
    page = open_page(tmp_path, "health")
    model = nn.Sequential(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="live") as watch:

        def step() -> None:
            model(torch.randn(3, 4)).square().mean().backward()
            optimizer.step()

        step()
        shown(page, "live")
        (choice,) = page.selectbox
        assert choice.value == 0 and choice.options[0] == "automatically, within 3% of the time"
        choice.set_value(10).run()
        end = time.monotonic() + 30
        while watch.controls.capture_every != 10 and time.monotonic() < end:
            step()
        assert watch.controls.capture_every == 10


def test_the_reason_stands_beside_the_module_and_runs_are_listed_by_their_script(
    runs_dir: Path,
) -> None:
    app = turn_to(open_app(runs_dir, run="odd"), "modules")
    columns = list(app.dataframe[0].proto.column_order)
    assert columns[:3] == ["path", "type", "note"]
    notes = app.dataframe[0].value.set_index("path")["note"]
    assert notes["unused"] == "never called"
    whole = [caption.value for caption in app.caption]
    cut = {path: note for path, note in notes.items() if len(note) > 24}
    assert any("its parameters are used" in note for note in cut.values())
    for path, note in cut.items():  # it stands below the table in full
        assert any(escape(path) in text and escape(note) in text for text in whole)
    assert not any("never called" in text for text in whole)
    turn_to(app, "runs")
    assert set(app.dataframe[0].value["model"]) == {Path(sys.argv[0]).name}
    assert json.loads(app.dataframe[0].proto.columns)["data"]["hidden"]
    assert set(app.dataframe[0].value["optimizer"]) == {"SGD"}


class Partly(nn.Module):
    """A frozen part, one that nobody calls, and one called past its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 4).requires_grad_(False)
        self.unused = nn.Linear(4, 4)
        self.past = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.past.forward(self.backbone(x))
        return out


def test_rows_without_numbers_have_a_reason(tmp_path: Path) -> None:
    train(Partly(), tmp_path, "partly")
    with inspector.open_run(tmp_path / "partly") as run:
        assert absent(run, "grad_norm") == (
            "Without numbers: backbone (frozen); unused (never ran)."
        )
        assert absent(run, "weight_norm") == ""
        assert absent(run, "activation_std") == (
            "Without numbers: unused (never ran); past (blind)."
        )
    page = open_page(tmp_path, "gradients")
    assert "backbone (frozen)" in shown(page, "partly")


def test_a_refused_fault_says_why_where_it_was_asked_for(tmp_path: Path) -> None:
    with closing(Writer(create_run(tmp_path, "whole", {"kind": "watched"}))) as writer:
        why = "Labels can be shuffled only if watch() was given a loss module."
        writer.event(7, CommandRefused(command_id="a", name="fault", reason=why))
    page = open_page(tmp_path, "break_it")
    assert f"Not done at step 7: {why}" in shown(page, "whole")


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.attention(x[None], x[None], x[None], need_weights=False)[0]
        return made


def test_what_attention_reads_by_itself_is_not_called_blind(tmp_path: Path) -> None:
    train(Attends(), tmp_path, "attends")
    with inspector.open_run(tmp_path / "attends") as run:
        found = {module.path: module for module in module_health(run.document("modules"))}
        badge = health_badge(run)
    assert found["attention.out_proj"].sight == "no statistics"
    assert "nn.MultiheadAttention" in found["attention.out_proj"].reason
    assert badge is not None and badge.level == "good"


def test_the_budget_is_written_beside_its_line_not_on_the_curve() -> None:
    figure = cost_figure([(0, 49, 0.05), (50, 99, 0.03)], budget=0.03)
    (label,) = figure.layout.annotations
    assert (label.x, label.xanchor, label.yanchor) == (1, "left", "middle")
    assert figure.layout.margin.r >= 60
