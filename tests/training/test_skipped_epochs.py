"""Epochs in which every step is skipped by loss scaling: the run stays at one step."""

from __future__ import annotations

from pathlib import Path

from inspector.config import RunConfig
from inspector.events import CommandApplied, EpochFinished, TelemetryDropped
from inspector.store.reader import Run
from inspector.training.runner import prepare, train_and_record


def test_a_step_is_validated_and_changed_once_however_many_epochs_skip(tmp_path: Path) -> None:
    config = RunConfig(
        model="mlp", data="digits", batch_size=512, epochs=4, precision="fp16", torch_threads=1,
        lr=1e30, validation=0.2, test=0.1,
        by_hand=[{"step": 1, "control": "clip_threshold", "value": 2.0}],
    )  # fmt: skip
    task = prepare(config, tmp_path, "run")
    assert not isinstance(task, str), task
    train_and_record(task, tmp_path, "run", lambda _: None)
    with Run(tmp_path / "run") as run:
        events = [stored.event for stored in run.events()]
        assert run.heartbeat is not None and run.heartbeat.step == 1  # the first one only
        assert run.series("val_loss").steps.tolist() == [0]
        assert run.series("test_loss").steps.tolist() == [0]
    assert not [event for event in events if isinstance(event, TelemetryDropped)]
    epochs = [event for event in events if isinstance(event, EpochFinished)]
    assert [event.epoch for event in epochs] == [0, 1, 2, 3]
    assert all(event.val_loss is not None for event in epochs)
    assert [e.name for e in events if isinstance(e, CommandApplied)] == ["clip_threshold"]
