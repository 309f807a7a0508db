"""docs/store.md says what the files hold, and its program reads them."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import numpy as np

from inspector.quantities import ABSENT_BITS, SeriesKey
from inspector.store.layout import CHUNK_ROWS, FANOUT, LEVELS, SCHEMA, STRIPE, create_run
from inspector.store.writer import Writer

DOCS = (Path(__file__).parents[2] / "docs" / "store.md").read_text("utf-8")


def test_the_program_without_inspector_reads_a_run(tmp_path: Path) -> None:
    path = create_run(tmp_path, "NAME", {})
    keys = (*(SeriesKey("mine", "run", str(i)) for i in range(130)), SeriesKey("loss"))
    writer = Writer(path)
    for step in range(0, 400, 2):
        late = keys if step >= 100 else keys[:5]
        writer.append("scalar", step, late, np.full(len(late), step, np.float32))
    writer.close()
    program = next(
        block for block in re.findall(r"```python\n(.*?)```", DOCS, re.S) if "SELECT" in block
    )
    space: dict[str, object] = {}
    exec(program.replace("runs/NAME", str(path)), space)
    np.testing.assert_array_equal(space["steps"], range(100, 400, 2))
    np.testing.assert_array_equal(space["values"], range(100, 400, 2))


def test_every_table_and_column_is_described() -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        (line,) = re.findall(rf"^\| `{table}` \|(.*)\|$", DOCS, re.M)
        for _, column, *_ in db.execute(f"PRAGMA table_info({table})"):
            assert f"`{column}`" in line or (table, column) == ("heartbeat", "id"), (table, column)


def test_the_constants_are_those_of_the_docs() -> None:
    assert (CHUNK_ROWS, STRIPE, FANOUT, LEVELS) == (64, 128, 16, (16, 256, 4096))
    assert f"0x{ABSENT_BITS:X}" in DOCS
