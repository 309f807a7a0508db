"""The documentation names every model, data source and preset."""

from __future__ import annotations

from pathlib import Path

from inspector import catalog
from inspector.presets import PRESETS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_models_and_data_are_documented() -> None:
    text = (DOCS / "models-and-data.md").read_text("utf-8")
    assert [name for name in (*catalog.MODELS, *catalog.DATA) if f"`{name}`" not in text] == []


def test_presets_are_documented() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    assert [preset.key for preset in PRESETS if f"`{preset.key}`" not in text] == []
