"""The learning rate finder on Findings: whose rate is tried, and where its advice goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from inspector.store.control import ControlReader
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_app, turn_to


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """Of a script's run that is going."""
    made = Writer(create_run(tmp_path, "run", {"kind": "watched", "config": {}}))
    made.heartbeat(20, "running")
    yield made
    made.close()


@pytest.fixture
def app(tmp_path: Path) -> AppTest:
    return open_app(tmp_path, run="run")


def stepped(writer: Writer, *optimizers: dict[str, Any]) -> None:
    writer.document("optimizers", 20, {"step": 20, "optimizers": list(optimizers)})
    writer.flush()


def optimizer(title: str, *groups: str) -> dict[str, Any]:
    return {
        "type": "Adam",
        "title": title,
        "groups": [{"title": group, "parameters": 2, "lr": 0.1} for group in groups],
    }


def tried(writer: Writer, **told: Any) -> None:
    curve = [1.0 - at / 50 for at in range(30)]
    document = {"lrs": [10 ** (at / 10 - 4) for at in range(30)], "losses": curve,
                "smoothed": curve, "suggestion": 0.01, "note": "", **told}  # fmt: skip
    writer.document("lr_finder", 20, document)
    writer.flush()


def test_one_of_several_optimizers_is_tried_and_its_rate_alone_is_set(
    app: AppTest, writer: Writer, tmp_path: Path
) -> None:
    stepped(writer, optimizer("critic", "critic"), optimizer("maker", "maker 0", "maker 1"))
    page = turn_to(app, "findings")
    choice = page.main.selectbox(key="lr-of/run")
    assert (choice.label, choice.options) == (
        "Learning rate of",
        ["All optimizers", "critic", "maker"],
    )
    choice.select("1").run()
    page.button(key="lr-find").click().run()
    commands = ControlReader(tmp_path / "run")
    (command,) = commands.poll()
    assert (command.name, command.target) == ("lr_finder", "1")

    tried(writer, target="1", where="maker", moved=["maker 0", "maker 1"])
    page.run()
    said = [str(text.value).replace("\\", "") for text in page.main.caption]
    assert any("The rate is that of maker 0; maker 1 kept its ratio" in text for text in said)
    apply = page.button(key="lr-apply")
    assert apply.label == "Set the learning rate of maker to 0.01"
    apply.click().run()
    (command,) = commands.poll()
    assert (command.control, command.value, command.target) == ("lr", 0.01, "1")
    commands.close()


def test_groups_of_one_optimizer_rise_together_without_a_choice(
    app: AppTest, writer: Writer
) -> None:
    stepped(writer, optimizer("Adam", "group 0 · body", "group 1 · head"))
    tried(writer, target="", where="", moved=["group 0 · body", "group 1 · head"])
    page = turn_to(app, "findings")
    assert not page.main.selectbox
    said = [str(text.value).replace("\\", "") for text in page.main.caption]
    assert any("The rate is that of group 0 · body; group 1 · head kept" in text for text in said)
    assert page.button(key="lr-apply").label == "Set the learning rate to 0.01"
