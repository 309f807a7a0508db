"""View models: what the pages say, from records made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.charts.histograms import on_common_bins
from inspector.commands import Controls
from inspector.events import (
    CheckpointSaved,
    CommandApplied,
    CommandRefused,
    Event,
    Frame,
    NonFinite,
    RunFailed,
    ScheduleChanged,
    StoredEvent,
)
from inspector.numerals import short
from inspector.store.records import Histogram
from inspector.views import controls, events, modules


def stored(*recorded: Event) -> list[StoredEvent]:
    return [
        StoredEvent(seq=seq, step=10 * seq, rank=0, wall=1e9 + seq, mono_ns=seq, event=event)
        for seq, event in enumerate(recorded, 1)
    ]


def module(path: str, call: int, parameters: int = 0, **more: object) -> dict[str, object]:
    return {
        "path": path, "type": "Linear", "call_index": call, "inputs": [[2, 3]],
        "outputs": [[2, 4]], "dtype": "float32", "parameters": parameters,
        "trainable": parameters, "bytes": 4 * parameters, "output_bytes": 32, "badge": "", **more,
    }  # fmt: skip


DOCUMENT = {
    "modules": [
        module("body.0", 0, 16), module("body.1", 1, 20), module("body", 2, 36),
        module("head", 3, 5, trainable=0), module("", 4, 41, trainable=36),
        module("spare", -1, 0, badge="never called"),
        module("list", -1, 0, type="ModuleList", badge="never called"),
    ]
}  # fmt: skip


def test_modules_stand_in_call_order_with_parents_first() -> None:
    assert [row.path for row in modules.rows(DOCUMENT)] == [
        "(model)", "body", "body.0", "body.1", "head", "spare", "list",
    ]  # fmt: skip


def test_totals_count_each_parameter_once_and_only_outputs_of_leaves() -> None:
    whole = modules.totals(modules.rows(DOCUMENT))
    assert (whole.parameters, whole.trainable, whole.bytes) == (41, 36, 164)
    assert whole.output_bytes == 5 * 32  # body is made of body.0 and body.1


def test_frozen_modules_and_reasons_are_named() -> None:
    table = {row.path: row for row in modules.rows(DOCUMENT)}
    assert table["head"].state == "frozen"
    assert table["(model)"].state == "partly frozen"
    assert table["spare"].note == "never called"
    assert table["list"].note == ""


def test_what_is_frozen_or_released_later_is_named_as_it_is_now() -> None:
    parameters = {
        "parameters": [
            {"name": f"{path}.weight", "module": path, "elements": count, "trainable": trained}
            for path, count, trained in (
                ("body.0", 16, True), ("body.1", 20, True), ("head", 5, False)
            )
        ]
    }  # fmt: skip
    moved = modules.released(parameters, before=("head",), frozen=("body.0",))
    table = {row.path: row for row in modules.rows(DOCUMENT, moved)}
    assert {path: table[path].state for path in ("body.0", "body.1", "body", "head")} == {
        "body.0": "frozen", "body.1": "trainable", "body": "partly frozen", "head": "trainable",
    }  # fmt: skip
    assert modules.totals(list(table.values())).trainable == 36 - 16 + 5
    whole = modules.released(parameters, before=("head",), frozen=("body", "head"))
    assert modules.rows(DOCUMENT, whole)[0].state == "frozen"


def test_search_needs_every_word() -> None:
    table = modules.rows(DOCUMENT)
    assert [row.path for row in modules.matching(table, "BODY 2×4")] == ["body", "body.0", "body.1"]
    assert modules.matching(table, "body nothing") == []


def test_missing_modules_document_gives_an_empty_table() -> None:
    assert modules.rows(None) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (12, "12 B"), (1500, "1.46 KiB"), (1023 * 2**10, "1023 KiB"), (3 * 2**40, "3 TiB")],
)
def test_bytes_in_words(count: float, text: str) -> None:
    assert modules.bytes_text(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-5"), (1.5e-12, "1.5e-12"), (0.05, "0.05"), (2e20, "2e20"), (-3e-7, "-3e-7")],
)
def test_exponents_are_written_without_zeros(value: float, text: str) -> None:
    assert short(value) == text


def test_controls_in_force_follow_configuration_then_commands() -> None:
    config = {"lr": 0.1, "momentum": 0.9, "controls": {"clip": "norm", "lr": None}}
    applied = stored(
        CommandApplied(command_id="a", name="lr", requested=0.5, effective=0.25),
        CommandRefused(command_id="b", name="clip", requested="x", reason="no"),
        CommandApplied(command_id="c", name="zero_grad", requested=False, effective=False),
    )
    assert controls.in_force(config, applied) == Controls(
        lr=0.25, momentum=0.9, clip="norm", zero_grad=False
    )
    assert set(controls.answers(applied)) == {"a", "b", "c"}


def test_controls_of_a_newer_version_are_passed_over() -> None:
    applied = stored(CommandApplied(command_id="a", name="clip", effective="by_moonlight"))
    assert controls.in_force({"controls": {"sparkle": 3}}, applied) == Controls()


def test_event_rows_are_newest_first_and_can_be_narrowed() -> None:
    recorded = stored(
        NonFinite(where="activation", module="score", module_type="LogScore"),
        RunFailed(
            error="ValueError", message="boom", phase="forward", frames=(Frame("a", 1, "f"),)
        ),
    )
    rows = events.rows(recorded)
    assert [row.text for row in rows] == [
        "Run failed in forward: ValueError: boom",
        "Non-finite activation of score (LogScore).",
    ]
    assert [row.step for row in events.rows(recorded, kinds=["Non-finite"])] == [10]
    routine = stored(ScheduleChanged(probe="modules", every=2))
    assert events.rows(routine) == []
    assert [row.text for row in events.rows(routine, kinds=["Measuring"])] == [
        "Measured every 2 steps: modules."
    ]
    assert events.titles([*routine, *recorded])[-1] == "Measuring"
    found = events.failure(recorded)
    assert found is not None
    assert found[0] == 20


def test_files_of_checkpoints_are_not_named() -> None:
    place = "blobs/checkpoints/"
    saved = stored(
        CheckpointSaved(path=f"{place}last.pt", at=1500, reason="last", val_loss=0.25),
        CheckpointSaved(path=f"{place}best.pt", at=1500, reason="best", val_loss=0.25),
        CheckpointSaved(path=f"{place}step-001500.pt", at=1500, reason="every"),
        CommandApplied(command_id="a", name="checkpoint", effective=f"{place}step-001500.pt"),
    )
    assert [row.text for row in events.rows(saved)] == [
        "checkpoint",
        "Checkpoint of step 1,500 saved.",
        "Best checkpoint saved: validation loss 0.25.",
        "Last checkpoint saved.",
    ]


def test_histograms_are_spread_over_common_bins_without_losing_values() -> None:
    histograms = [
        Histogram(0, 0.0, 1.0, np.array([5, 15])),
        Histogram(1, -1.0, 3.0, np.array([0, 10, 10, 0])),
        Histogram(2, 0.5, 0.5, np.array([7])),
    ]
    edges, share = on_common_bins(histograms, bins=8)
    assert (edges[0], edges[-1]) == (-1.0, 3.0)
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    # 0 to 1 covers two of the eight bins: a quarter and three quarters of the values.
    np.testing.assert_allclose(share[0], [0, 0, 0.25, 0.75, 0, 0, 0, 0])
    assert share[2].argmax() == 3
