"""What was measured, as it is handed to the writer: keys that stay, gaps, and what is in force."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from inspector.capture.measured import Measured
from inspector.capture.quiet import NOWHERE
from inspector.quantities import ABSENT_BITS, SeriesKey
from inspector.recording.rows import Rows
from inspector.store.writer import Writer


class Written:
    """A writer that keeps what it is given; the memory of the values is used again."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, tuple[SeriesKey, ...], list[float | None]]] = []

    def append(self, group: str, step: int, keys: tuple[SeriesKey, ...], values: Any) -> None:
        found = np.array(values, np.float32)
        absent = found.view(np.uint32) == ABSENT_BITS
        given = [None if gone else float(v) for v, gone in zip(found, absent, strict=True)]
        self.rows.append((group, step, keys, given))

    def extend(self, group: str, first: int, keys: tuple[SeriesKey, ...], values: Any) -> None:
        for at, row in enumerate(values):
            self.append(group, first + at, keys, row)

    def named(self, at: int) -> dict[str, float]:
        """The numbers of a row by quantity, without memory, which is that of this machine."""
        _, _, keys, values = self.rows[at]
        pairs = zip((key.quantity for key in keys), values, strict=True)
        return {name: v for name, v in pairs if v is not None and "memory" not in name}


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def rows(written: Written) -> Rows:
    return Rows(cast(Writer, written), torch.device("cpu"))


def test_keys_stay_the_same_object_until_a_name_is_new(rows: Rows, written: Written) -> None:
    rows.add(Measured(0, False, {"loss": 1.0, "accuracy": 0.25}))
    rows.add(Measured(1, False, {"loss": 2.0}))
    rows.add(Measured(2, False, {"accuracy": 0.5}))
    rows.add(Measured(3, False, {"loss": 3.0, "new": 4.0}))
    first, second, third, last = (keys for _, _, keys, _ in written.rows)
    assert first is second is third
    assert last[: len(first)] == first and last[-1] == SeriesKey("new")
    assert [written.named(at) for at in range(4)] == [
        {"loss": 1.0, "accuracy": 0.25},
        {"loss": 2.0},
        {"accuracy": 0.5},
        {"loss": 3.0, "new": 4.0},
    ]


def test_epoch_and_samples_are_in_force_until_they_are_given_again(
    rows: Rows, written: Written
) -> None:
    rows.add(Measured(0, False, {"epoch": 1.0, "samples": 32.0, "step_time": 0.5}))
    rows.add(Measured(1, False, {"step_time": 0.25}))
    later = {"step_time": np.array([0.5, 0.5, 0.25]), "epoch": np.array([NOWHERE, 2.0, NOWHERE])}
    rows.extend(2, later, None, None)
    rows.add(Measured(5, False, {"step_time": 1.0}))
    found = [written.named(at) for at in range(6)]
    assert [row["epoch"] for row in found] == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert [row["samples_per_s"] for row in found] == [64.0, 128.0, 64.0, 64.0, 128.0, 32.0]
    assert not any("samples" in row for row in found)


def test_a_second_validation_of_a_step_adds_to_the_first(rows: Rows, written: Written) -> None:
    rows.validation(4, {"val_loss": 0.5})
    rows.validation(4, {"val_accuracy": 0.75})
    rows.validation(9, {"val_loss": 0.25, "val_accuracy": 1.0})
    assert [(group, step) for group, step, _, _ in written.rows] == [
        ("validation", 4),
        ("validation/val_accuracy", 4),
        ("validation", 9),
        ("validation/val_accuracy", 9),
    ]
