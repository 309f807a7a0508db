"""The panel to go on from a checkpoint, and the checks: what a person reads and can press."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from inspector.commands import Command
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.events import CheckpointSaved, RunFinished
from inspector.store.control import ControlReader
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.training import runner
from tests.app.in_process import serve


def panel() -> None:
    import streamlit as st

    from inspector.ui.fork import fork_panel

    st.session_state["pages"] = {}
    fork_panel(st.session_state["of"])


def keeping() -> None:
    import streamlit as st

    from inspector.ui.fork import keep

    st.session_state["pages"] = {}
    keep(["one", "two"])


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    serve(tmp_path)
    return tmp_path


def shown(of: str) -> AppTest:
    app = AppTest.from_function(panel, default_timeout=60)
    app.session_state["of"] = of
    app.run()
    assert not app.exception, app.exception
    return app


def recorded(folder: Path, name: str, *, kind: str = "built_in", ended: bool = True) -> Writer:
    path = create_run(folder, name, {"kind": kind, "config": RunConfig().to_dict()})
    writer = Writer(path)
    writer.heartbeat(7, "running", total_steps=100)
    (path / "blobs" / "checkpoints").mkdir()
    (path / "blobs" / "checkpoints" / "step-000005.pt").write_bytes(b"x")
    for step, file, loss in ((5, "step-000005", 0.5), (6, "step-000006", 0.4)):
        saved = CheckpointSaved(
            path=f"blobs/checkpoints/{file}.pt", at=step, reason="every", val_loss=loss,
            size=2_000_000,
        )  # fmt: skip
        writer.event(step, saved)
    if ended:
        writer.event(7, RunFinished())
        writer.heartbeat(7, "finished", total_steps=100)
        writer.close()
    return writer


def test_checkpoints_that_are_still_there_are_listed(runs_dir: Path) -> None:
    recorded(runs_dir, "done")
    app = shown("done")
    (row,) = app.dataframe[0].value.to_dict("records")
    assert (row["checkpoint"], row["step"], row["val_loss"], row["size"]) == ("5", 5, 0.5, 2.0)
    assert app.selectbox(key="fork/done/at").options == ["checkpoint · step 5"]
    labels = [button.label for button in app.button]
    assert labels == ["Fork", "Resume", "Overfit one batch", "Do two runs agree?"]


def test_a_live_run_offers_its_present_step_and_a_checkpoint_now(runs_dir: Path) -> None:
    writer = recorded(runs_dir, "live", ended=False)
    writer.flush()
    try:
        app = shown("live")
        offered = ["the present step", "checkpoint · step 5"]
        assert app.selectbox(key="fork/live/at").options == offered
        app.button(key="fork/now/live").click().run()
        assert not app.exception
        (command,) = ControlReader(runs_dir / "live").poll()
        assert command == Command(name="checkpoint", id=command.id)
    finally:
        writer.close()


def test_what_a_live_run_holds_in_memory_is_offered_by_step(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.training import forking

    writer = recorded(runs_dir, "live", ended=False)
    asked: list[tuple[str, str]] = []

    def gone(run: str, at: str, *_: object, **__: object) -> str:
        asked.append((run, at))
        raise ConfigError("The time machine holds no snapshot of step 7.")

    monkeypatch.setattr(forking, "fork", gone)
    try:
        writer.heartbeat(19, "paused", total_steps=100, snapshots=[5, 7, 17])
        writer.flush()
        app = shown("live")
        box = app.selectbox(key="fork/live/at")
        assert box.options == [
            "the present step", "snapshot · step 17", "snapshot · step 7", "checkpoint · step 5",
        ]  # fmt: skip
        writer.heartbeat(40, "running", total_steps=100, snapshots=[27, 37])
        writer.flush()
        box.select_index(2)
        app.button[1].click().run()
        assert not app.exception
        # What was chosen is asked for and stays chosen, though the run has replaced it since.
        assert asked == [("live", "7")]
        assert "no snapshot of step 7" in app.error[0].value.replace("\\", "")
        assert app.selectbox(key="fork/live/at").options[:3] == [
            "the present step", "the earliest snapshot", "snapshot · step 7",
        ]  # fmt: skip
    finally:
        writer.close()


def test_a_script_of_ones_own_keeps_its_own_checkpoints(runs_dir: Path) -> None:
    recorded(runs_dir, "script", kind="watched")
    app = shown("script")
    assert "keeps its own with `torch.save`" in app.caption[0].value
    assert not app.button


def test_what_cannot_go_on_is_said_where_the_button_was_pressed(runs_dir: Path) -> None:
    recorded(runs_dir, "done")
    app = shown("done")
    app.button[1].click().run()
    assert not app.exception
    assert "cannot be read" in app.error[0].value


def test_a_second_click_makes_no_second_run(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.training import forking

    recorded(runs_dir, "done")
    seen: list[bool] = []
    app = AppTest.from_function(panel, default_timeout=60)

    def fork(*_args: Any, **_kwargs: Any) -> str:
        seen.append(True)
        raise ConfigError("Nothing was forked here.")

    monkeypatch.setattr(forking, "fork", fork)
    app.session_state["of"] = "done"
    app.run()
    app.button[0].click().run()
    assert seen == [True]
    assert "Nothing was forked here" in app.error[0].value
    assert not app.button[0].disabled
    app.run()
    assert seen == [True] and not app.error


def test_one_is_kept_and_the_other_lies_in_the_trash(runs_dir: Path) -> None:
    recorded(runs_dir, "one")
    recorded(runs_dir, "two")
    app = AppTest.from_function(keeping, default_timeout=60).run()
    app.selectbox(key="keep/which/one/two").select("two").run()
    assert "**one**" in "".join(text.value for text in app.markdown)
    app.button(key="keep/do/one/two").click().run()
    assert sorted(path.name for path in runs_dir.iterdir()) == [".trash", "two"]
    assert (runs_dir / ".trash" / "one" / "run.json").exists()


def test_the_origin_of_a_fork_is_told(runs_dir: Path) -> None:
    config = RunConfig(steps=20, batch_size=100, torch_threads=1, checkpoint_every=10)
    runner.start(config, runs_dir, "parent")
    assert runner.join(60)
    from inspector.training.forking import fork

    name = fork("parent", "10", runs_dir, {"lr": 0.02})
    assert runner.join(60)
    app = shown(name)
    assert app.caption[0].value.replace("\\", "") == (
        "Forked from **parent** at step 10 with lr = 0.02."
    )


def test_a_batch_is_learned_by_heart_at_the_press_of_a_button(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.training import checks
    from inspector.training.overfitting import overfit

    recorded(runs_dir, "done")
    monkeypatch.setattr(  # in this process: a second Python would take seconds to begin
        checks, "check_overfit", lambda config, told: overfit(config, 300, lambda *_: told("", 0))
    )
    app = shown("done")
    app.button(key="fork/done/overfit").click().run()
    answered(app, "fork/done")
    assert "Learns 64 samples by heart in" in app.success[0].value


def answered(app: AppTest, key: str) -> None:
    for _ in range(600):
        if not app.session_state[f"{key}/check"].running:
            break
        time.sleep(0.1)
    app.run()
    assert not app.exception, app.exception


def test_one_check_at_a_time_and_it_can_be_stopped(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.training import checks

    def endless(_: RunConfig, told: Any) -> None:
        for step in itertools.count():
            told(f"step {step}", 0.5)
            time.sleep(0.01)

    recorded(runs_dir, "done")
    monkeypatch.setattr(checks, "check_overfit", endless)
    app = shown("done")
    app.button(key="fork/done/overfit").click().run()
    app.run()
    assert app.button(key="fork/done/twice").disabled
    app.button(key="fork/done/stop").click().run()
    answered(app, "fork/done")
    assert app.error[0].value == "Stopped\\."
    assert not app.button(key="fork/done/twice").disabled
