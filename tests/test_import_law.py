"""The import law of docs/architecture.md, by walking every import in the tree."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {
    "events", "commands", "errors", "quantities", "config", "presets", "catalog", "faults",
    "schedules", "preset", "practice_presets", "numerals",
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def under(*places: str) -> list[Path]:
    files: list[Path] = []
    for place in places:
        path = ROOT / place
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert files
    return files


def names(path: Path, *packages: str) -> list[str]:
    return [
        name
        for name in imports(path)
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    ]


ALL = under("inspector", "pages", "sample_models", "app.py")


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_modules_import_only_the_standard_library_and_each_other(name: str) -> None:
    allowed = {f"inspector.{plain}" for plain in PLAIN}
    path = ROOT / "inspector" / name
    for file in under(f"inspector/{name}") if path.is_dir() else [path.with_suffix(".py")]:
        for imported in imports(file):
            top = imported.split(".")[0]
            fine = top in sys.stdlib_module_names or any(
                imported == one or imported.startswith(f"{one}.") for one in allowed
            )
            assert fine or imported == "inspector", f"{file} imports {imported}"


@pytest.mark.parametrize("room", ["store", "views", "charts", "diagnosis"])
def test_readers_never_import_torch(room: str) -> None:
    for path in under(f"inspector/{room}"):
        heavy = ("torch", "torchvision", "inspector.capture", "inspector.training",
                 "inspector.autograd", "inspector.recorder", "inspector.recording",
                 "inspector.watching")  # fmt: skip
        assert names(path, *heavy) == [], path


def test_of_the_exports_only_model_and_script_import_torch() -> None:
    models = set(under("inspector/exports/model", "inspector/exports/script"))
    for path in under("inspector/exports"):
        heavy = ("torch", "torchvision", "inspector.capture", "inspector.training",
                 "inspector.recorder", "inspector.recording", "inspector.watching")  # fmt: skip
        assert path in models or names(path, *heavy) == [], path


def test_capture_never_imports_the_store() -> None:
    for path in under("inspector/capture"):
        behind = "inspector.store", "inspector.recorder", "inspector.recording"
        assert names(path, *behind) == [], path


def test_only_the_front_imports_streamlit_or_starlette() -> None:
    front = {ROOT / "app.py", *under("pages", "inspector/ui", "inspector/server")}
    for path in ALL:
        if path not in front:
            assert names(path, "streamlit", "starlette") == [], path


def test_sample_models_do_not_know_the_inspector() -> None:
    for path in under("sample_models"):
        assert names(path, "inspector") == [], path


def test_pages_never_import_training() -> None:
    for path in under("pages"):
        assert names(path, "inspector.training", "torch") == [], path
