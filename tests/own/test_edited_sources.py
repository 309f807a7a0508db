"""A source that is edited while a run goes: said, shown, and used by the next run, parts too."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.config import RunConfig
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.own.code import find_own
from inspector.training.own.reference import load
from inspector.views.sources import edited_sources, kept_sources
from tests.app.in_process import open_app, read, turn_to

BLOCKS = str(Path("parts_xyz") / "blocks.py")
MODEL = (
    "from torch import nn\nfrom parts_xyz.blocks import block\n"
    "def model(in_features, num_classes):\n    return block(in_features, num_classes)\n"
)
BLOCK = "from torch import nn\ndef block(a, b):\n    return nn.Linear(a, b)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model that imports a package beside it."""
    folder = tmp_path / "project"
    (folder / "parts_xyz").mkdir(parents=True)
    (folder / "parts_xyz" / "__init__.py").write_text("", "utf-8")
    (folder / "parts_xyz" / "blocks.py").write_text(BLOCK, "utf-8")
    (folder / "net_xyz.py").write_text(MODEL, "utf-8")
    monkeypatch.chdir(folder)
    path = list(sys.path)
    yield folder
    sys.path[:] = path
    for name in [name for name in sys.modules if name.endswith("_xyz") or "_xyz." in name]:
        del sys.modules[name]


def test_an_edit_is_said_while_the_run_goes_and_shown(project: Path, tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    config = RunConfig(model="file:net_xyz.py:model", data="two_moons", epochs=100_000)
    name = runner.start(config, runs_dir)
    path = runs_dir / name
    assert set(kept_sources(path)) == {"net_xyz.py", BLOCKS, BLOCKS.replace("blocks", "__init__")}
    assert edited_sources(path) == []
    live = turn_to(open_app(runs_dir, run=name), "live")
    assert not live.exception
    assert "edited" not in read(live, "caption")
    changed = BLOCK.replace("Linear(a, b)", "Linear(a, b, bias=False)")
    (project / "parts_xyz" / "blocks.py").write_text(changed, "utf-8")
    (one,) = edited_sources(path)
    assert "-    return nn.Linear(a, b)\n+    return nn.Linear(a, b, bias=False)" in one.difference
    live.run()
    said = read(live, "caption")
    assert "blocks.py was edited at" in said
    assert "the next run uses the new version; this run keeps what it started with" in said
    assert any("bias=False" in code.value for code in live.code)
    assert any(code.value == BLOCK.rstrip("\n") or code.value == BLOCK for code in live.code)
    start = turn_to(open_app(runs_dir, run=name), "start")
    assert "blocks.py was edited at" in read(start, "caption")
    runner.stop()
    assert runner.join(60)
    second = runner.start(shorter(config), runs_dir)
    assert runner.join(60)
    with contextlib.closing(Run(runs_dir / second)) as run:
        assert run.status == "finished"
    kept = kept_sources(runs_dir / second)[BLOCKS]
    assert kept == changed
    (project / "net_xyz.py").unlink()
    assert {one.name: one.at for one in edited_sources(runs_dir / second)}["net_xyz.py"] == 0


def shorter(config: RunConfig) -> RunConfig:
    return RunConfig.from_dict({**config.to_dict(), "epochs": 1})


def test_parts_of_an_importable_model_are_read_again(project: Path) -> None:
    first = load("import:net_xyz:model")
    assert BLOCKS in first.sources
    assert load("import:net_xyz:model").value is first.value  # nothing changed
    (project / "parts_xyz" / "blocks.py").write_text(BLOCK.replace("a, b)\n", "a, b + 1)\n"))
    again = load("import:net_xyz:model")
    assert first.value(2, 3).out_features == 3
    assert again.value(2, 3).out_features == 4
    assert again.origins["net_xyz.py"] == str(project / "net_xyz.py")
    assert load("import:torchvision.models:resnet18").sources == {}


def test_model_and_data_share_what_they_import(project: Path) -> None:
    (project / "data_xyz.py").write_text(
        "import torch\nfrom parts_xyz import blocks\n"
        "def data():\n    return torch.randn(20, 2), torch.zeros(20).long()\n",
        "utf-8",
    )
    config = RunConfig(model="file:net_xyz.py:model", data="file:data_xyz.py:data")
    own = find_own(config)
    assert own.model is not None and own.data is not None
    assert own.model.module.block is own.data.module.blocks.block
    assert set(own.sources) >= {"net_xyz.py", "data_xyz.py"}
    assert own.sources.origins["data_xyz.py"] == str(project / "data_xyz.py")


def test_typed_code_has_no_file_to_be_edited(tmp_path: Path) -> None:
    code = "from torch import nn\ndef model():\n    return nn.Linear(2, 2)\n"
    config = RunConfig(model="code:model", code=code, data="two_moons", steps=2)
    name = runner.start(config, tmp_path)
    assert runner.join(60)
    assert kept_sources(tmp_path / name) == {"your_code.py": code}
    assert edited_sources(tmp_path / name) == []
