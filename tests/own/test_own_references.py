"""A user's own Python: found, executed afresh, kept, and refused with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
import torch

from inspector.errors import ConfigError
from inspector.training.own.arguments import arguments, summary
from inspector.training.own.reference import load, names_in

NET = "from torch import nn\nclass Net(nn.Module):\n    width = {width}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_an_edit_within_the_same_second_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "net.py", NET.format(width=10))
    stat = path.stat()
    assert load(f"file:{path}:Net").value.width == 10
    write(path, NET.format(width=20))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    loaded = load(f"file:{path}:Net")
    assert loaded.value.width == 20
    assert loaded.sources == {"net.py": NET.format(width=20)}


def test_files_beside_it_are_imported_afresh_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "own_sizes_xyz.py", "SIZE = 1\n")
    path = write(tmp_path / "net.py", "from own_sizes_xyz import SIZE\ndef net(): return SIZE\n")
    assert load(f"file:{path}:net").value() == 1
    write(tmp_path / "own_sizes_xyz.py", "SIZE = 2\n")
    loaded = load(f"file:{path}:net")
    assert loaded.value() == 2
    assert loaded.sources["own_sizes_xyz.py"] == "SIZE = 2\n"
    assert not list(tmp_path.rglob("*.pyc"))


def test_two_folders_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "own_parts_xyz.py", f"SIZE = {number}\n")
        write(tmp_path / str(number) / "net.py", "import own_parts_xyz as parts\n"
              "def net(): return parts.SIZE\n")  # fmt: skip
    first, second, again = (load(f"file:{tmp_path / n / 'net.py'}:net") for n in ("1", "2", "1"))
    assert (first.value(), second.value(), again.value()) == (1, 2, 1)
    assert second.sources["own_parts_xyz.py"] == "SIZE = 2\n"


def test_a_file_does_not_shadow_pythons_own(tmp_path: Path) -> None:
    write(tmp_path / "random.py", "raise SystemError\n")
    path = write(tmp_path / "net.py", "import random\ndef net(): return random.random()\n")
    assert 0 <= load(f"file:{path}:net").value() < 1


def test_importable_and_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("import:torch.nn:Linear").value is torch.nn.Linear
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = load("code:Net", NET.format(width=3))
    assert loaded.value.width == 3
    assert Path(str(loaded.module.__file__)).read_text("utf-8") == NET.format(width=3)
    assert Path(str(loaded.module.__file__)).stat().st_uid == os.getuid()


def test_an_imported_module_is_reloaded_when_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    path = write(tmp_path / "own_module_abc.py", "VALUE = dict(a=1)\n")
    assert load("import:own_module_abc:VALUE").value == {"a": 1}
    write(path, "VALUE = dict(a=2)\n")
    assert load("import:own_module_abc:VALUE").value == {"a": 2}


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("x = (1,\n", "Net", r"net\.py cannot be loaded: line 1: '\(' was never closed"),
        (
            "import sys\nsys.exit('bye')\n",
            "Net",
            r"cannot be loaded: line 2: SystemExit: bye; put what it does as a script below if",
        ),
        ("\n\n1 / 0\n", "Net", r"cannot be loaded: line 3: ZeroDivisionError: division by zero"),
        ("import no_such_thing\n", "Net", r"line 1: ModuleNotFoundError: No module named"),
        ("class Other: pass\n", "Net", r"no 'Net' in .*net\.py; it defines Other"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_its_line(
    text: str, name: str, sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "net.py", text)
    with pytest.raises(ConfigError, match=sentence):
        load(f"file:{path}:{name}")


def test_a_missing_name_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "net.py", NET.format(width=1))
    with pytest.raises(ConfigError, match=r"name of a class .* it defines Net"):
        load(f"file:{path}")


@pytest.mark.parametrize("path", ["missing.py", "https://example.org/net.py", "net.txt", ""])
def test_only_python_files_of_this_machine(path: str) -> None:
    with pytest.raises(ConfigError, match=r"path of a \.py file"):
        load(f"file:{path}:Net")


def test_names_are_read_without_executing() -> None:
    source = "raise SystemExit\nclass A: pass\ndef f(): pass\ndef _g(): pass\nnet = A()\nn = 3\n"
    assert names_in(source) == ["A", "f", "net"]


class Described:
    """Sizes and switches.

    More of it.

    Args:
        width: of every layer,
            in units.
        act: the activation.
    """

    def __init__(
        self,
        width: int,
        *,
        rate: float = 1,
        deep: bool = False,
        act: Literal["relu", "tanh"] = "relu",
        name: str | None = None,
        kernel: tuple[int, int] = (3, 3),
        limit: int | None = 5,
        **rest: object,
    ) -> None: ...


def test_arguments_have_type_default_and_description() -> None:
    found = {argument.name: argument for argument in arguments(Described)}
    assert list(found) == ["width", "rate", "deep", "act", "name", "kernel", "limit"]
    assert {name: argument.kind for name, argument in found.items()} == {
        "width": "int", "rate": "float", "deep": "bool", "act": "choice", "name": "str",
        "kernel": "json", "limit": "int",
    }  # fmt: skip
    assert found["width"].required
    assert found["width"].about == "of every layer, in units."
    assert found["act"].choices == ("relu", "tanh")
    assert found["limit"].optional
    assert found["limit"].default == 5
    assert summary(Described) == "Sizes and switches."


def numpy_style(size, depth=2):  # type: ignore[no-untyped-def]
    """Builds.

    Parameters
    ----------
    size : int
        How wide.
    """


def rest_style(size=1):  # type: ignore[no-untyped-def]
    """Builds.

    :param size: How wide.
    """


def test_other_docstring_styles() -> None:
    assert [(a.kind, a.about) for a in arguments(numpy_style)] == [
        ("json", "How wide."),
        ("int", ""),
    ]
    assert arguments(rest_style)[0].about == "How wide."
