"""Parquet and CSV, read back with pandas and compared with what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from recorded import LOSS, NORM, STEPS, known

from inspector.errors import ExportError
from inspector.exports.export import export
from inspector.exports.tables import column
from inspector.store.reader import Run


def same_bits(found: np.ndarray, wanted: np.ndarray) -> bool:
    found, wanted = found.astype(np.float32), wanted.astype(np.float32)
    return bool(np.array_equal(found, wanted, equal_nan=True))


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_long_table_holds_every_number_of_every_rank(
    two_ranks: Path, tmp_path: Path, to: str
) -> None:
    with Run(two_ranks) as run:
        made = export(run, to, tmp_path / f"table.{to}")
    table = pd.read_parquet(made.path) if to == "parquet" else pd.read_csv(made.path)
    assert list(table.columns) == ["rank", "step", "wall", "quantity", "subject", "value"]
    table = table.fillna({"subject": ""})
    assert (
        len(table)
        == made.facts["lines"]
        == sum(len(values) for rank in (0, 1) for values in known(rank).values())
    )
    for rank in (0, 1):
        for key, values in known(rank).items():
            part = table[
                (table["rank"] == rank)
                & (table["quantity"] == key.quantity)
                & (table["subject"] == key.subject)
            ]
            assert part["step"].tolist() == list(values)
            assert same_bits(part["value"].to_numpy(), np.array(list(values.values())))
            assert part["wall"].is_monotonic_increasing


def test_wide_table_tells_a_nan_from_what_was_not_measured(two_ranks: Path, tmp_path: Path) -> None:
    with Run(two_ranks) as run:
        made = export(run, "parquet", tmp_path / "wide.parquet", form="wide")
        written = export(run, "csv", tmp_path / "wide.csv", form="wide")
    table = pq.read_table(made.path)
    assert table.num_rows == 2 * STEPS
    loss, norm = table["loss"], table[column(NORM)]
    assert column(NORM) == "grad_norm/net.0.weight"
    assert loss.null_count == 0 and np.isnan(loss[7].as_py())
    assert norm[7].as_py() is None and norm[10].as_py() == known(0)[NORM][10]
    lines = written.path.read_text().splitlines()
    assert len(lines) == 1 + 2 * STEPS
    where = lines[0].replace('"', "").split(",").index("loss")
    assert [lines[1 + step].split(",")[where] for step in (7, 8, 9)] == ["nan", "inf", "-inf"]


def test_a_run_in_progress_is_exported_as_far_as_it_is(tmp_path: Path) -> None:
    from inspector.store.layout import create_run
    from inspector.store.writer import Writer

    path = create_run(tmp_path, "going", {})
    writer = Writer(path)
    writer.append("scalar", 0, (LOSS,), [1.5])
    assert writer.flush()
    with Run(path) as run:
        assert run.status == "running"
        made = export(run, "csv", tmp_path / "going.csv")
    writer.close()
    assert pd.read_csv(made.path)["value"].tolist() == [1.5]


def test_nothing_is_overwritten_unless_told_to(one_rank: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept.csv"
    target.write_text("mine")
    with Run(one_rank) as run:
        with pytest.raises(ExportError, match="exists; choose another with --out"):
            export(run, "csv", target)
        assert target.read_text() == "mine"
        export(run, "csv", target, force=True)
    assert target.read_text().startswith('"rank"')
    assert [one.name for one in tmp_path.iterdir()] == ["kept.csv"]


def test_configuration_starts_the_same_run_again(trained, tmp_path: Path) -> None:
    from inspector.config import RunConfig

    with trained("mlp", "digits") as run:
        made = export(run, "config", tmp_path / "again.json")
        again = RunConfig.from_file(made.path).to_dict()
        assert json.loads(json.dumps(again)) == run.config
        assert json.loads(made.path.read_text())["model"] == "mlp"


def test_a_watched_run_has_no_configuration(one_rank: Path, tmp_path: Path) -> None:
    with (
        Run(one_rank) as run,
        pytest.raises(ExportError, match="can be exported of it is its tele"),
    ):
        export(run, "config", tmp_path / "none.json")
    assert list(tmp_path.iterdir()) == []


def test_missing_library_is_one_sentence(
    one_rank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.exports import formats

    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda _: None)
    with (
        Run(one_rank) as run,
        pytest.raises(ExportError, match=r"pip install 'torch-inspector\[exp"),
    ):
        export(run, "tensorboard", tmp_path)
