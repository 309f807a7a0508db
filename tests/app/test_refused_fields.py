"""What cannot be used is refused at its field, with a sentence, and nothing starts of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.training import runner
from tests.app.in_process import draft, open_app, read


@pytest.fixture
def app(tmp_path: Path) -> AppTest:
    return open_app(tmp_path / "runs").run()


def captions(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return read(app, "caption", "markdown").split("\n")


@pytest.mark.parametrize(
    ("key", "typed", "sentence"),
    [
        ("batch/0", -1, "Batch size must be 1 or more, but got -1; enter another number."),
        ("batch/0", 0, "Batch size must be 1 or more, but got 0; enter another number."),
        ("lr/0", -0.5, "Learning rate must be 0 or more, but got -0.5; enter another number."),
        ("momentum/0", 1.0, "Momentum must be from 0 to 0.999, but got 1; enter another number."),
        ("decay/0", -1.0, "Weight decay must be 0 or more, but got -1; enter another number."),
        ("epochs/0", 0, "Epochs must be 1 or more, but got 0; enter another number."),
        ("seed/0", -3, "Seed must be 0 or more, but got -3; enter another number."),
        ("own-settings/0/workers", 99,
         "Loading processes must be from 0 to 64, but got 99; enter another number."),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_used_says_why(
    app: AppTest, key: str, typed: float, sentence: str
) -> None:
    before = draft(app)
    app.number_input(key=key).set_value(typed).run()
    assert f":small[:red[{sentence}]]" in captions(app)
    assert draft(app) == before
    app.button(key="start").click().run()
    assert "Nothing was started" in str(app.error[0].value)
    assert runner.current() is None


def test_a_number_of_the_practices_is_refused_too(app: AppTest) -> None:
    app.session_state["practices/0"] = True
    app.session_state["practices/0/tab"] = "Steps"
    app.run()
    app.number_input(key="practices/0/Steps/accumulate").set_value(0).run()
    wanted = (
        ":small[:red[Backward passes a step must be 1 or more, but got 0; enter another number.]]"
    )
    assert wanted in captions(app)
    app.number_input(key="practices/0/Steps/accumulate").set_value(2).run()
    assert draft(app).controls.accumulate == 2
    assert wanted not in captions(app)


def test_start_takes_what_was_entered_last(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunConfig] = []
    monkeypatch.setattr("inspector.ui.runs.start_and_watch", started.append)
    app.number_input(key="batch/0").set_value(32)
    app.button(key="start").click().run()
    assert [config.batch_size for config in started] == [32]


def test_metrics_are_those_of_the_task(app: AppTest) -> None:
    box = app.multiselect(key="own-settings/0/metrics")
    assert box.options == ["f1", "precision", "recall", "auroc", "confusion_matrix"]
    app.selectbox(key="data/0").select("diabetes").run()
    assert app.multiselect(key="own-settings/0/metrics").options == ["mae", "rmse", "r2"]
    app.selectbox(key="own-settings/0/task").select("multi_label").run()
    assert "exact_match" in app.multiselect(key="own-settings/0/metrics").options


def test_metrics_name_their_tasks_until_the_data_is_known(app: AppTest, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n" + "".join(f"{n},{n}.5\n" for n in range(40)))
    app.session_state["draft"] = RunConfig(data=f"csv:{tmp_path}/table.csv")
    app.session_state["draft_version"] = 1
    app.run()
    options = app.multiselect(key="own-settings/1/metrics").options
    assert "mae · regression, reconstruction" in options
    assert "mean_iou · per pixel" in options
    assert any("finds out the task of this data" in caption for caption in captions(app))
    app.button(key="own/look").click().run()
    assert app.multiselect(key="own-settings/1/metrics").options == ["mae", "rmse", "r2"]
    assert not any("finds out the task of this data" in caption for caption in captions(app))


def test_a_metric_of_another_task_is_refused_at_once(app: AppTest) -> None:
    app.session_state["draft"] = RunConfig(metrics=["auroc"])
    app.session_state["draft_version"] = 1
    app.run()
    app.selectbox(key="data/1").select("diabetes").run()
    (said,) = [caption for caption in captions(app) if caption.startswith(":small[:red[")]
    assert said.startswith(
        ":small[:red[There is no metric 'auroc' for the task regression; choose from"
    )
    app.button(key="start").click().run()
    assert "Nothing was started" in str(app.error[0].value)
