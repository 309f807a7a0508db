"""Reading TensorBoard event files: every scalar with its steps and times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import ExportError
from inspector.exports.tags import keys_of
from inspector.quantities import SeriesKey
from inspector.store.layout import F32, F64, I64

PATTERN = "*tfevents*"
NEEDED = (
    "Reading TensorBoard's files needs tensorboard, which this environment lacks; install it "
    "with: pip install 'torch-inspector[export]'."
)


@dataclass(frozen=True, slots=True, eq=False)
class Scalars:
    """One series: rising steps, seconds since 1970, values."""

    tag: str
    key: SeriesKey
    steps: I64
    walls: F64
    values: F32


@dataclass(frozen=True, slots=True)
class Log:
    """What was read; ``notes`` are sentences about what was not."""

    scalars: tuple[Scalars, ...]
    notes: tuple[str, ...]


def read(place: Path) -> Log:
    """The scalars of an event file, or of all event files of a folder (not below it).

    A step that was logged twice, as after a restart, counts as it was logged last.

    Raises:
        ExportError: tensorboard is missing, or there are no scalars to be read.
    """
    files = event_files(place)
    if not files:
        raise ExportError(
            f"Expected a TensorBoard event file (events.out.tfevents.…) at {place}, but there is "
            "none; give the folder that was TensorBoard's log_dir."
        )
    found: dict[str, list[tuple[int, float, float]]] = {}
    notes = [note for file in files for note in _file(file, found)]
    keys = keys_of(list(found))
    scalars = [_series(tag, keys[tag], rows, notes) for tag, rows in found.items()]
    kept = tuple(one for one in scalars if len(one.steps))
    if not kept:
        reason = f": {notes[0]}" if notes else "; histograms and images are not imported."
        raise ExportError(f"There are no scalars in {place}{reason}")
    return Log(kept, tuple(notes))


def event_files(place: Path) -> list[Path]:
    """Event files at a path, oldest first."""
    if place.is_file():
        return [place]
    return sorted((one for one in place.glob(PATTERN) if one.is_file()), key=lambda one: one.name)


def _file(path: Path, found: dict[str, list[tuple[int, float, float]]]) -> Iterator[str]:
    """Adds the scalars of one file; yields what went wrong."""
    try:
        from tensorboard import data_compat
        from tensorboard.compat.proto import event_pb2
        from tensorboard.compat.tensorflow_stub import errors
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
    except ImportError as error:
        raise ExportError(NEEDED) from error

    reader: Any = PyRecordReader_New(str(path))
    records = 0
    metadata: dict[str, Any] = {}
    while True:
        try:
            reader.GetNext()
            event = event_pb2.Event.FromString(reader.record())
        except errors.OutOfRangeError:
            return
        except Exception as error:  # a damaged file raises nearly anything
            yield (
                f"{path.name} is damaged after {records} records ({_first(error)}); "
                "what precedes was read."
            )
            return
        records += 1
        for value in event.summary.value:
            kind = data_compat.migrate_value(value)
            number = _number(kind, metadata)
            if number is not None:
                found.setdefault(value.tag, []).append((event.step, event.wall_time, number))


def _number(value: Any, metadata: dict[str, Any]) -> float | None:
    """The scalar in a summary value; None for images, histograms, texts."""
    from tensorboard.util import tensor_util

    plugin = value.metadata.plugin_data.plugin_name or metadata.get(value.tag, "")
    metadata.setdefault(value.tag, plugin)  # only the first value of a tag names its plugin
    if plugin != "scalars" or not value.HasField("tensor"):
        return None
    numbers = np.asarray(tensor_util.make_ndarray(value.tensor)).reshape(-1)
    return float(numbers[0]) if numbers.size == 1 else None


def _series(
    tag: str, key: SeriesKey, rows: list[tuple[int, float, float]], notes: list[str]
) -> Scalars:
    last = {step: (wall, number) for step, wall, number in rows if step >= 0}
    steps: I64 = np.array(sorted(last), np.int64)
    walls: F64 = np.array([last[step][0] for step in steps.tolist()], np.float64)
    with np.errstate(over="ignore"):
        values: F32 = np.array([last[step][1] for step in steps.tolist()], np.float64).astype(
            np.float32
        )
    twice = len(rows) - len(last)
    if twice:
        notes.append(f"{tag}: {twice} values were logged again for a step and count once.")
    return Scalars(tag, key, steps, walls, values)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
