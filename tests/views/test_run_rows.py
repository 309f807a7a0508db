"""The rows of the run list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import inspector
from inspector.store.reader import Run, RunSummary, list_runs
from inspector.views.compare_settings import settings
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


def test_a_script_is_listed_with_the_optimizer_that_it_was_watched_with(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="script"):
        pass
    (summary,) = list_runs(tmp_path)
    (listed,) = rows([summary])
    assert (listed["optimizer"], listed["lr"]) == ("AdamW", 0.003)
    assert matching([summary], "adamw") == [summary]
    with Run(tmp_path / "script") as run:
        assert settings(run)["optimizer"] == "adamw"  # as the settings of other runs have it


def test_what_a_script_says_of_itself_comes_before_what_was_seen() -> None:
    seen = ({"type": "Adam", "lr": 0.1}, {"type": "Adam", "lr": 0.2})
    summary = RunSummary("one", "runs/one", "finished", "watched", optimizers=seen)
    assert (rows([summary])[0]["optimizer"], rows([summary])[0]["lr"]) == ("2 × Adam", 0.1)
    told = replace(summary, config={"optimizer": "Sophia", "lr": 0.5})
    assert (rows([told])[0]["optimizer"], rows([told])[0]["lr"]) == ("Sophia", 0.5)
    assert row({"optimizer": "sgd"})["optimizer"] == "SGD"


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
