"""Ranking, thresholds, a user's own rules, the command, the cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector import diagnosis
from inspector.commands import Command
from inspector.diagnosis import Evidence, Finding, Remedy, diagnose, register
from inspector.diagnosis.causes import EXPLAINS
from inspector.diagnosis.command import diagnose_command, in_words
from inspector.diagnosis.finding import CODES
from inspector.diagnosis.findings import ranked
from inspector.diagnosis.registry import unregister
from inspector.diagnosis.remedies import REMEDIES
from inspector.errors import ConfigError
from inspector.events import NonFinite, StoredEvent
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.views import findings as view


class FakeSeries:
    def __init__(self, values: list[float]) -> None:
        self.steps = np.arange(len(values))
        self.values = np.array(values, dtype=np.float32)


class FakeRun:
    """A run from memory: series, documents and events."""

    def __init__(self, **series: list[float]) -> None:
        self._series = series
        self.documents: dict[str, dict[str, Any]] = {}
        self.stored: list[StoredEvent] = []

    def series(self, quantity: str, subject: str = "", *, max_points: int = 2000) -> FakeSeries:
        assert max_points
        return FakeSeries(self._series.get(quantity, []) if not subject else [])

    def document(self, kind: str, step: int | None = None) -> dict[str, Any] | None:
        assert step is None
        return self.documents.get(kind)

    def events(self, after: int = 0) -> list[StoredEvent]:
        return self.stored[after:]


def finding(
    code: str, *, level: Any = "warning", confidence: float = 0.8, step: int = 0
) -> Finding:
    return Finding(code=code, level=level, title=code, confidence=confidence, step=step)


def test_an_empty_run_has_no_findings() -> None:
    assert diagnose(FakeRun()) == []


def test_a_cause_comes_before_a_surer_symptom() -> None:
    found = ranked(
        [finding("nonfinite", confidence=0.99, step=9), finding("lr_too_high", confidence=0.6)]
    )
    assert [f.code for f in found] == ["lr_too_high", "nonfinite"]
    assert found[0].consequences == ("nonfinite",)
    assert found[1].consequence_of == "lr_too_high"


def test_a_note_explains_nothing_and_comes_last() -> None:
    found = ranked([finding("lr_too_high", level="note"), finding("nonfinite", confidence=0.5)])
    assert [f.code for f in found] == ["nonfinite", "lr_too_high"]
    assert found[0].consequence_of is None


def test_what_begins_later_is_no_cause() -> None:
    found = ranked([finding("lr_too_high", step=50), finding("nonfinite", step=3)])
    assert all(f.consequence_of is None for f in found)


def test_of_two_that_explain_each_other_the_earlier_does() -> None:
    found = ranked([finding("exploding_gradient", step=0), finding("lr_too_high", step=3)])
    assert [f.code for f in found] == ["exploding_gradient", "lr_too_high"]


def test_a_note_follows_from_what_is_serious_although_it_could_explain_it() -> None:
    found = ranked(
        [finding("label_mismatch", level="note"), finding("lr_too_high", level="critical", step=1)]
    )
    assert [f.consequence_of for f in found] == [None, "lr_too_high"]


def test_evidence_names_the_steps_that_its_number_is_of() -> None:
    run = FakeRun(
        loss=[1.0, 6.0, *[5.0] * 98], total_update_ratio=[0.2] * 21 + [1e-4] * 79, lr=[0.3] * 100
    )
    (found,) = (f for f in diagnose(run) if f.code == "lr_too_high")
    loss, moved = found.evidence
    assert loss.text == "loss over its first value = 5 (limit 2) in steps 0–49"
    assert moved.text == "median update ratio ‖Δw‖/‖w‖ = 0.2 (limit 0.03) in steps 0–20"


def test_the_limit_beside_a_raised_rate_is_a_rate() -> None:
    run = FakeRun(loss=[1.0] * 50 + [9.0] * 100, lr=[0.001] * 50 + [0.03] * 100)
    (found,) = (f for f in diagnose(run) if f.code == "lr_too_high")
    drawing = found.evidence[0].drawing
    assert drawing is not None and drawing.axis == "learning rate"
    assert drawing.limits == ((pytest.approx(0.005), "5 × highest before"),)


def test_divergence_is_put_down_to_the_learning_rate() -> None:
    loss = [2.3, 4.0, 30.0, 900.0, 5e4, float("nan"), *[float("nan")] * 20]
    run = FakeRun(loss=loss, total_update_ratio=[0.8] * 5, lr=[10.0] * 26)
    run.stored = [StoredEvent(0, 5, 0, 0.0, 0, NonFinite(where="loss"))]
    found = diagnose(run)
    assert [f.code for f in found][:2] == ["lr_too_high", "nonfinite"]
    assert found[1].consequence_of == "lr_too_high"
    remedy = found[0].remedies[0]
    assert remedy.control == "lr" and remedy.value < 1


def test_a_skipped_scaler_step_is_no_finding() -> None:
    from inspector.events import StepSkipped

    run = FakeRun(loss=[1.0] * 20)
    run.stored = [
        StoredEvent(0, 3, 0, 0.0, 0, NonFinite(where="gradient")),
        StoredEvent(1, 3, 0, 0.0, 0, StepSkipped(reason="GradScaler")),
    ]
    assert "nonfinite" not in [f.code for f in diagnose(run)]


def test_a_scaler_that_gets_no_further_is_one() -> None:
    from inspector.events import StepSkipped

    run = FakeRun(loss=[1.0] * 20)
    lost = NonFinite(where="parameter", module="0", parameter="0.weight")
    why = "GradScaler found non-finite gradients"
    run.stored = [
        StoredEvent(0, 20, 0, 0.0, 0, lost),
        StoredEvent(1, 20, 0, 0.0, 0, StepSkipped(reason=why, in_a_row=32, total=32)),
    ]
    (found,) = (f for f in diagnose(run) if f.code == "nonfinite")
    assert (found.level, found.module, found.step) == ("critical", "0", 20)
    assert "no step since step 20 (at least 32 tries)" in found.explanation


def test_thresholds_can_be_set() -> None:
    falling = [2.0 - 0.001 * i for i in range(100)]
    run = FakeRun(loss=falling, total_update_ratio=[5e-4] * 100, lr=[1e-4] * 100)
    assert diagnose(run) == []
    changed = diagnose(run, thresholds={"lr_too_low.note": 1e-2, "lr_too_low.ratio": 1e-2,
                                        "lr_too_low.fall": 0.5})  # fmt: skip
    assert [f.code for f in changed] == ["lr_too_low"]
    with pytest.raises(ConfigError, match=r"but got .lr_too_low"):
        diagnose(run, thresholds={"lr_too_low.nonsense": 1.0})


def test_every_threshold_is_listed_with_its_default() -> None:
    assert diagnosis.thresholds()["vanishing_gradient.ratio"] == 1e-3


def test_a_user_registers_a_rule() -> None:
    @register("answer", tolerance=0.5)
    def check(run: Any, limits: Any) -> Any:
        if abs(run.loss.values[-1] - 42) < limits["tolerance"]:
            yield finding("answer")

    try:
        assert "answer" in [f.code for f in diagnose(FakeRun(loss=[42.1]))]
        strict = diagnose(FakeRun(loss=[42.1]), thresholds={"answer.tolerance": 0.01})
        assert "answer" not in [f.code for f in strict]
    finally:
        unregister("answer")
    assert "answer" not in diagnosis.all_rules()


def test_there_is_one_rule_and_one_heading_for_every_code() -> None:
    assert set(diagnosis.all_rules()) == set(CODES) == set(view.TITLES)
    assert set(EXPLAINS) <= set(CODES)
    assert set(REMEDIES) <= set(CODES)


def test_every_rule_says_statistic_source_and_false_alarms() -> None:
    for code, rule in diagnosis.all_rules().items():
        text = __import__(rule.check.__module__, fromlist=["x"]).__doc__ or ""
        for word in ("Statistic", "Source", "False alarms"):
            assert word in text, f"{code}: {word}"


def test_remedies_that_set_a_control_are_valid_commands() -> None:
    for remedies in REMEDIES.values():
        for remedy in remedies:
            if remedy.control:
                Command(name="set", control=remedy.control, value=remedy.value)


@pytest.fixture
def diverged(tmp_path: Path) -> Path:
    path = create_run(tmp_path, "diverged", {"kind": "watched", "config": {}})
    writer = Writer(path)
    keys = (SeriesKey("loss"), SeriesKey("total_update_ratio"), SeriesKey("lr"))
    for step in range(30):
        writer.append("scalar", step, keys, [2.3 * 3.0**step, 0.5, 1.0])
    writer.close()
    return path


def test_the_command_ends_with_one_on_critical_findings(diverged: Path) -> None:
    lines: list[str] = []
    assert diagnose_command(diverged, lines.append) == 1
    assert any("critical lr_too_high" in line for line in lines)
    lines.clear()
    assert diagnose_command("diverged", lines.append, runs_dir=diverged.parent, as_json=True) == 1
    content = json.loads("\n".join(lines))
    assert content["findings"][0]["code"] == "lr_too_high"
    assert content["findings"][0]["remedies"][0]["control"] == "lr"


def test_words_for_nothing() -> None:
    assert in_words("quiet", []) == ["quiet: nothing found."]


def test_cards_tell_place_and_remedies() -> None:
    made = Finding(
        code="nonfinite", level="critical", title="NaN.", confidence=0.9, module="net.0", op="log",
        file="train.py", line=7, step=12, consequence_of="lr_too_high",
        evidence=(Evidence(statistic="non-finite values", value=3.0, threshold=0.0),),
        remedies=(Remedy(text="Now.", control="lr", value=0.1), Remedy(text="Later.")),
    )  # fmt: skip
    (card,) = view.cards([made])
    assert card.place == "module net.0 · log · train.py:7 · since step 12"
    assert card.because == "Learning rate too high"
    assert [r.text for r in card.controls] == ["Now."]
    assert [r.text for r in card.advice] == ["Later."]
    assert card.seen == ("non-finite values = 3 (limit 0)",)


def test_the_evidence_curve_keeps_gaps() -> None:
    curve = view.curve(
        FakeRun(loss=[1.0, float("nan"), 3.0]), Evidence(statistic="x", quantity="loss")
    )
    assert curve is not None and curve.values == [1.0, None, 3.0]
    assert view.curve(FakeRun(), Evidence(statistic="x", quantity="loss")) is None
