"""The rows of the run list."""

from __future__ import annotations

from typing import Any

from inspector.store.reader import RunSummary
from inspector.views.runs import labels, matching, rows


def row(config: dict[str, Any], kind: str = "built-in") -> dict[str, Any]:
    return rows([RunSummary("one", "runs/one", "finished", kind, config=config)])[0]


def test_ones_own_is_listed_by_its_name_and_not_by_its_path() -> None:
    listed = row({"model": "file:/a/long/path/nets.py:Net", "data": "csv:/a/long/path/houses.csv"})
    assert (listed["model"], listed["data"]) == ("Net", "houses.csv")


def test_names_that_come_along_stay_as_the_settings_take_them() -> None:
    assert row({"model": "mlp", "data": "digits"})["model"] == "mlp"
    assert row({}, "watched")["model"] == "your script"
    assert row({}, "imported")["model"] == "imported log"


def test_a_script_is_listed_and_found_by_its_file() -> None:
    summary = RunSummary("one", "runs/one", "finished", "watched", script="gan.py")
    assert rows([summary])[0]["model"] == "gan.py"
    assert matching([summary], "GAN.py") == [summary]


def test_long_names_that_begin_alike_are_told_apart_by_their_ends() -> None:
    names = [
        f"2026-11-21-vision-language-ablation-{end}" for end in ("lr1e-3-seed0", "lr1e-4-seed1")
    ]
    assert labels(["short", *names]) == {
        "short": "short",
        names[0]: "2026-11-21-v…lr1e-3-seed0",
        names[1]: "2026-11-21-v…lr1e-4-seed1",
    }


def test_names_that_differ_only_within_stay_whole() -> None:
    names = [f"2026-11-21-vision-{part}-ablation-lr1e-3-seed0" for part in ("a", "b")]
    assert labels(names) == {name: name for name in names}
