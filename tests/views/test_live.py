"""Live buffers against the reader: growing by rows shows what a fresh look at the store shows."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.quantities import SeriesKey
from inspector.store.records import Matrix, Series
from inspector.views.live import MatrixBuffer, MatrixKey, Seen, SeriesBuffer

LOSS = SeriesKey("loss")


def series(values: list[float], *, bucket: int = 1, width: int = 1) -> Series:
    made = np.array(values, np.float32)
    steps = np.arange(1, len(made) + 1, dtype=np.int64) * width - 1
    return Series(steps, made, made, made, (~np.isfinite(made)).astype(np.int32), bucket)


def loaded(values: list[float], max_points: int = 100, **kind: int) -> SeriesBuffer:
    buffer = SeriesBuffer(LOSS, max_points)
    buffer.load(series(values, **kind))
    return buffer


def steps(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def test_a_new_viewer_gets_everything_and_then_only_what_is_new() -> None:
    buffer = loaded([1, 2, 3])
    update, seen = buffer.after(Seen())
    assert update is not None
    assert update.start == 0
    assert update.planes[0].tolist() == [1, 2, 3]
    assert buffer.after(seen) == (None, seen)

    buffer.extend(steps(3, 4), floats(4, 5))
    update, seen = buffer.after(seen)
    assert update is not None
    assert update.start == 2  # the last point again: it might have been an open bucket
    assert update.steps.tolist() == [2, 3, 4]
    assert update.planes[0].tolist() == [3, 4, 5]
    assert buffer.after(seen)[0] is None


def test_rows_that_the_history_already_has_are_left_out() -> None:
    buffer = loaded([1, 2, 3])
    buffer.extend(steps(1, 2, 3), floats(20, 30, 40))
    assert buffer.after(Seen())[0].planes[0].tolist() == [1, 2, 3, 40]  # type: ignore[union-attr]


def test_non_finite_values_are_gaps_with_a_count() -> None:
    buffer = loaded([1, np.nan])
    buffer.extend(steps(2, 3), floats(np.inf, 4))
    value, _, _, bad, good = buffer.after(Seen())[0].planes  # type: ignore[union-attr]
    np.testing.assert_array_equal(value, floats(1, np.nan, np.nan, 4))
    assert bad.tolist() == [0, 1, 1, 0]
    assert good.tolist() == [1, 0, 0, 1]


def test_rows_fold_into_buckets_that_keep_extremes_and_non_finite_counts() -> None:
    buffer = loaded([1.0] * 20, max_points=20, bucket=10, width=10)
    assert buffer.stride == 10
    values = np.linspace(0, 1, 35, dtype=np.float32)
    values[7] = np.nan
    for part in np.array_split(np.arange(35), 6):  # in pieces, so that buckets stay open
        buffer.extend(200 + part, values[part])
    update, _ = buffer.after(Seen())
    assert update is not None
    assert update.steps[20:].tolist() == [209, 219, 229, 234]
    mean, low, high, bad, good = update.planes[:, 20:]
    blocks = [values[:10], values[10:20], values[20:30], values[30:]]
    np.testing.assert_allclose(low, [np.nanmin(block) for block in blocks])
    np.testing.assert_allclose(high, [np.nanmax(block) for block in blocks])
    assert bad.tolist() == [1, 0, 0, 0]
    assert good.tolist() == [9, 10, 10, 5]
    assert mean == pytest.approx([np.nanmean(block) for block in blocks], rel=1e-5)


def test_an_open_bucket_that_grew_is_sent_again() -> None:
    buffer = loaded([1.0] * 20, max_points=20, bucket=10, width=10)
    buffer.extend(steps(200), floats(5))
    _, seen = buffer.after(Seen())
    buffer.extend(steps(201), floats(9))
    update, _ = buffer.after(seen)
    assert update is not None
    assert update.steps[-1] == 201
    assert update.planes[2, -1] == 9


def test_a_doubled_buffer_asks_to_be_loaded_and_viewers_then_start_over() -> None:
    buffer = loaded([0.0] * 10, max_points=10)
    _, seen = buffer.after(Seen())
    buffer.extend(np.arange(10, 20), np.zeros(10, np.float32))
    assert buffer.full
    buffer.load(series([0.0] * 10, bucket=2, width=2))
    assert not buffer.full
    update, _ = buffer.after(seen)
    assert update is not None
    assert update.start == 0
    assert len(update.steps) == 10


def test_more_rows_than_the_buffer_has_room_for_are_kept() -> None:
    buffer = loaded([], max_points=10)
    buffer.extend(np.arange(5000), np.arange(5000, dtype=np.float32))
    assert buffer.size == 5000
    assert buffer.full


def matrix(subjects: list[str], values: list[list[float]]) -> Matrix:
    made = np.array(values, np.float32).reshape(len(subjects), -1)
    columns = made.shape[1]
    return Matrix(subjects, np.arange(columns), made, (~np.isfinite(made)).astype(np.int32), 1)


def test_a_matrix_combines_parameters_of_a_module_as_the_root_of_their_squares() -> None:
    buffer = MatrixBuffer(MatrixKey("grad_norm", "module"), 100)
    buffer.load(matrix(["a", "b"], [[1], [2]]))
    names = ["a.weight", "a.bias", "b.weight"]
    values = np.array([[3, np.nan], [4, 1], [7, 8]], np.float32)
    present = np.array([[True, False], [True, True], [True, True]])
    assert buffer.extend(names, steps(1, 2), values, present)
    update, _ = buffer.after(Seen())
    assert update is not None
    assert update.subjects == ("a", "b")
    np.testing.assert_allclose(update.planes[:2], [[1, 5, 1], [2, 7, 8]])
    assert not update.planes[2:].any()  # what was not measured is no non-finite value


def test_a_measured_nan_is_counted_and_one_not_measured_is_not() -> None:
    buffer = MatrixBuffer(MatrixKey("update_ratio"), 100)
    buffer.load(matrix(["w"], [[1]]))
    buffer.extend(["w"], steps(1, 2), floats(np.nan, np.nan)[None], np.array([[True, False]]))
    update, _ = buffer.after(Seen())
    assert update is not None
    np.testing.assert_array_equal(update.planes[0], floats(1, np.nan, np.nan))
    assert update.planes[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize(("wanted", "grew"), [((), False), (("w",), True)])
def test_a_new_subject_needs_a_fresh_look_unless_nobody_asked_for_it(
    wanted: tuple[str, ...], grew: bool
) -> None:
    buffer = MatrixBuffer(MatrixKey("update_ratio", "subject", wanted), 100)
    buffer.load(matrix(["w"], [[1]]))
    values, present = np.ones((2, 1), np.float32), np.ones((2, 1), bool)
    assert buffer.extend(["w", "new"], steps(1), values, present) is grew


def test_the_mean_of_a_bucket_counts_every_number_once() -> None:
    """Rows that come one by one into an open bucket, against the mean of all of them."""
    made = Series(
        steps(7, 15), floats(1, 2), floats(1, 2), floats(1, 2), np.zeros(2, np.int32), 8,
        np.array([8, 2], np.int32),
    )  # fmt: skip
    buffer = SeriesBuffer(LOSS, 100)
    buffer.load(made)  # of the last bucket, two numbers have come
    for step in (16, 17, 18, 19):
        buffer.extend(steps(step), floats(10.0 * (step - 15)))
    buffer.extend(steps(24), floats(5))
    update, _ = buffer.after(Seen())
    assert update is not None
    assert update.steps.tolist() == [7, 15, 19, 24]
    assert update.planes[0].tolist() == [1, 2, 25, 5]
    assert update.planes[4].tolist() == [8, 2, 4, 1]


def test_viewers_are_told_whether_a_point_stands_for_several_steps() -> None:
    alone, _ = loaded([0.0] * 4, max_points=10).after(Seen())
    buffer = SeriesBuffer(LOSS, 10)
    buffer.load(series([0.0] * 10, bucket=2, width=2))
    several, _ = buffer.after(Seen())
    assert alone is not None
    assert several is not None
    assert not alone.folded
    assert several.folded
