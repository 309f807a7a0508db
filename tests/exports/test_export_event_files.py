"""TensorBoard both ways; TensorBoard's own accumulator is the judge of what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recorded import LOSS, NORM, STEPS, known
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from inspector.errors import ExportError
from inspector.exports.export import export
from inspector.exports.imported import import_tensorboard, refresh
from inspector.exports.tables import column
from inspector.exports.tags import keys_of
from inspector.quantities import SeriesKey
from inspector.store.reader import Run, list_runs, open_run


def accumulated(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def walls(run: Run, quantity: str) -> dict[int, float]:
    return {
        int(step): float(wall)
        for window in run.raw()
        for rows in window
        if any(key.quantity == quantity for key in rows.keys)
        for step, wall in zip(rows.steps, rows.walls, strict=True)
    }


def test_event_files_hold_what_was_recorded(two_ranks: Path, tmp_path: Path) -> None:
    with Run(two_ranks) as run:
        made = export(run, "tensorboard", tmp_path / "board")
        times = walls(run, "loss")
    for rank in (0, 1):
        events = accumulated(made.path / f"rank{rank}")
        assert set(events.Tags()["scalars"]) == {column(key) for key in known(rank)}
        for key, values in known(rank).items():
            found = events.Scalars(column(key))
            assert [one.step for one in found] == list(values)
            assert np.array_equal(
                np.array([one.value for one in found], np.float32),
                np.array(list(values.values())),
                equal_nan=True,
            )
        (histogram,) = events.Histograms("weight_histogram/net.0.weight")
        assert histogram.step == 140
        assert histogram.histogram_value.bucket == [1, 0, 5, 2]
        assert histogram.histogram_value.bucket_limit == [-0.5, 0, 0.5, 1]
    scalars = accumulated(made.path / "rank0").Scalars("loss")
    assert {one.step: one.wall_time for one in scalars} == pytest.approx(times, abs=1e-6)


def test_settings_become_hyperparameters(trained, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    with trained("mlp", "digits") as run:
        made = export(run, "tensorboard", tmp_path / "board")
    content = accumulated(made.path).SummaryMetadata("_hparams_/session_start_info")
    told = plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content)
    assert told.session_start_info.hparams["model"].string_value == "mlp"
    assert told.session_start_info.hparams["batch_size"].number_value == 64


def test_round_trip_gives_the_same_series_and_times(one_rank: Path, tmp_path: Path) -> None:
    with Run(one_rank) as run:
        made = export(run, "tensorboard", tmp_path / "board")
        times = walls(run, "loss")
    ((path, _),) = import_tensorboard(made.path, tmp_path / "runs")
    with open_run(path) as back:
        assert back.status == "finished" and back.meta["kind"] == "imported"
        assert set(back.keys()) == set(known(0))
        for key, values in known(0).items():
            series = back.series(key.quantity, key.subject)
            assert series.steps.tolist() == list(values)
            assert np.array_equal(series.values, np.array(list(values.values())), equal_nan=True)
        assert walls(back, "loss") == pytest.approx(times, abs=1.1e-3)


def writer(folder: Path):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def test_torchs_own_files_are_taken_up_where_they_lie(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with writer(runs / "foreign") as log:
        for step in range(0, 300, 3):
            log.add_scalar("train/loss", 1 / (step + 1), step, walltime=1e9 + step**1.5)
            log.add_scalar("Loss/val", 2.0, step, walltime=1e9 + step)
            log.add_scalar("learning_rate", 0.1, step, new_style=True)
            log.add_scalar("F1", 0.5, step)
        log.add_histogram("weights", np.arange(9.0), 3)
    with writer(runs / "nested" / "version_0") as log:
        log.add_scalar("loss", 1.0, 0)
    assert sorted(refresh(runs)) == ["foreign", "nested-version_0"]
    assert {one.name: one.status for one in list_runs(runs)} == {
        "foreign": "finished", "nested-version_0": "finished",
    }  # fmt: skip
    with open_run("foreign", runs) as run:
        recorded = run.keys()
        assert {key.quantity for key in recorded} == {"loss", "val_loss", "lr", "F1"}
        found = run.series("loss")
        assert found.steps.tolist() == list(range(0, 300, 3))
        assert np.array_equal(found.values, np.array([1 / (s + 1) for s in range(0, 300, 3)], "f4"))
        assert walls(run, "loss") == pytest.approx(
            {step: 1e9 + step**1.5 for step in range(0, 300, 3)}, abs=1.1e-3
        )
        assert "train/loss → loss" in " ".join(one.event.text for one in run.events())
    assert refresh(runs) == []
    with writer(runs / "foreign") as log:
        log.add_scalar("train/loss", 7.0, 900)
    assert refresh(runs) == ["foreign"]
    with open_run("foreign", runs) as run:
        assert run.series("loss").values[-1] == 7.0


def test_our_own_runs_are_not_taken_for_foreign_logs(one_rank: Path) -> None:
    (one_rank / "events.out.tfevents.1").write_bytes(b"of the user's own writer")
    try:
        assert refresh(one_rank.parent) == []
    finally:
        (one_rank / "events.out.tfevents.1").unlink()


def test_a_broken_file_is_one_sentence_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with writer(folder) as log:
        for step in range(50):
            log.add_scalar("loss", step, step)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    ((path, log_read),) = import_tensorboard(folder, tmp_path / "runs", "half")
    with open_run(path) as run:
        steps = run.series("loss").steps.tolist()
        assert steps == list(range(len(steps))) and 10 < len(steps) < 40
    assert "is damaged after" in log_read.notes[0]
    file.write_bytes(b"\x00garbage" * 40)
    with pytest.raises(ExportError, match=r"no scalars in .* is damaged after 0 records"):
        import_tensorboard(folder, tmp_path / "runs")
    with pytest.raises(ExportError, match="Expected a TensorBoard event file"):
        import_tensorboard(tmp_path / "nowhere", tmp_path / "runs")
    assert [one.name for one in list_runs(tmp_path / "runs")] == ["half"]


def test_tags_of_known_tools_lead_to_our_quantities() -> None:
    tags = ["train_loss_step", "val/acc", "lr-AdamW", "eval/loss", "Accuracy/train", "grad_norm",
            "test_loss", "BLEU", "grad_norm/a.b.weight", "activation_mean/(model)"]  # fmt: skip
    found = keys_of(tags)
    assert [found[tag] for tag in tags] == [
        LOSS, SeriesKey("val_accuracy"), SeriesKey("lr"), SeriesKey("val_loss"),
        SeriesKey("accuracy"), SeriesKey("total_grad_norm"), SeriesKey("test_loss"),
        SeriesKey("BLEU"), NORM._replace(subject="a.b.weight"),
        SeriesKey("activation_mean", "module", ""),
    ]  # fmt: skip
    both = keys_of(["train/loss", "loss", "Loss/train"])
    assert both["loss"] == LOSS and both["train/loss"] == SeriesKey("train/loss")
    assert STEPS > 64  # several chunks
